"""The tasks: what sets each apart. No other package of the job asks for a task's name, and none here imports torch."""

from lmft_api.tasks import Task
from lmft_job.tasks.base import TaskType
from lmft_job.tasks.causal_lm import CausalLM
from lmft_job.tasks.classification import SequenceClassification
from lmft_job.tasks.masked_lm import MaskedLM

_TYPES: dict[str, TaskType] = {one.name: one for one in (CausalLM(), MaskedLM(), SequenceClassification())}


def of(name: Task) -> TaskType:
    """What sets the task of this name apart."""
    return _TYPES[name]
