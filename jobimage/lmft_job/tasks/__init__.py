"""The tasks and their differences. No other package of the job checks a task's name, and none here imports torch."""

from lmft_api.tasks import Task
from lmft_job.tasks.base import TaskType
from lmft_job.tasks.causal_lm import CausalLM
from lmft_job.tasks.classification import SequenceClassification
from lmft_job.tasks.masked_lm import MaskedLM

_TYPES: dict[str, TaskType] = {one.name: one for one in (CausalLM(), MaskedLM(), SequenceClassification())}


def of(name: Task) -> TaskType:
    """The task type of this name."""
    return _TYPES[name]
