"""``spec`` of an LMFineTune: what to train, on what, how, and where the result goes.

Defaults that differ by task are resolved in :mod:`lmft_api.spec.resolved`, not here: an API server fills defaults in
before its rules run, so a default for ``epochs`` would make "epochs or maxSteps" always both.
"""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from lmft_api.schema.rules import Rule
from lmft_api.schema.types import ApiModel, DnsSubdomain
from lmft_api.spec.dataset import Dataset, has_conversations
from lmft_api.spec.model import HubTokenRef, Model
from lmft_api.spec.output import Output, ReportTo, Sample
from lmft_api.spec.pod import PodTemplate, Resources
from lmft_api.spec.training import CheckpointPolicy, Evaluation, Training
from lmft_api.tasks import DEFAULT_TASK, TASKS, Task, takes
from lmft_api.text.wording import in_words


class Preparation(StrEnum):
    """Where tokenising happens."""

    AUTO = "Auto"
    SEPARATE = "Separate"
    INLINE = "Inline"


class ResumeFrom(ApiModel):
    """Another run to start from."""

    name: DnsSubdomain
    """Name of an LMFineTune in the same namespace; it is waited for. One that failed gives its newest checkpoint."""


def _by_task(field: str, attribute: str, wrong: str) -> Rule:
    """A field of ``dataset`` is refused for the tasks that have no default for it.

    Args:
        field: its name in a manifest.
        attribute: its name in Python.
        wrong: what to say after the name; ``takers`` and ``others`` stand for the tasks that take it or do not.
    """
    takers = [task for task in Task if takes(task, attribute)]
    others = [task for task in Task if task not in takers]
    named = takers if len(takers) <= len(others) else others
    comparison, joint = ("==", " || ") if named is takers else ("!=", " && ")
    allowed = joint.join(f"self.task {comparison} '{task}'" for task in named)
    return Rule(
        f"{allowed} || !has(self.dataset.{field})",
        f"{field} {wrong.format(takers=in_words(takers), others=in_words(others))}",
        lambda spec: (spec.task in named) == (named is takers) or getattr(spec.dataset, attribute) is None,
        f"dataset.{field}",
    )


_CONVERSING = [str(task) for task in Task if TASKS[task].conversations]
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""Label that hands a run's Jobs to a queue of Kueue."""
_HAS_CONVERSATIONS = "has(self.dataset.messagesField) || has(self.dataset.promptField)"


class LMFineTuneSpec(ApiModel):
    """A fine-tuning run. Only model, dataset and, without a platform default, output are required."""

    task: Task = DEFAULT_TASK
    """CausalLM, MaskedLM or SequenceClassification."""
    model: Model
    """What to start from."""
    dataset: Dataset
    """What to train and evaluate on."""
    training: Training | None = None
    """Hyperparameters."""
    evaluation: Evaluation | None = None
    """When to evaluate."""
    checkpoint: CheckpointPolicy | None = None
    """When to save."""
    sample: Sample | None = None
    """Prompts answered before and after."""
    output: Output | None = None
    """Where the result goes."""
    report_to: ReportTo | None = None
    """Trackers that the metrics go to, beside metrics.jsonl in the run's folder; a change takes effect with the next
    attempt."""
    hub_token_secret_ref: HubTokenRef | None = None
    """Token for the model, the data set and the push."""
    resources: Resources | None = None
    """Resources that the pod requests."""
    pod_template: PodTemplate | None = None
    """Scheduling, image, labels, environment and volumes of the pod."""
    preparation: Preparation | None = None
    """Auto prepares on a CPU in a Job of its own before a GPU is taken. Default: Auto. With several nodes one pod
    prepares for all; Inline is heeded there only for an image of your own (podTemplate.image)."""
    resume_from: ResumeFrom | None = None
    """Start from the model, or else the newest checkpoint, of another run in this namespace."""
    suspend: bool | None = None
    """Stop with a checkpoint and free the resources of the run; false resumes it."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=315_360_000)] | None = None
    """Delete the resource this long after it ended; what is in storage is kept."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=315_360_000)] | None = None
    """Longest running time, over all attempts."""
    max_retries: Annotated[int, Field(ge=0, le=100)] | None = None
    """Retries after failures that may be temporary; interruptions do not count. Default: 3."""

    rules: ClassVar = (
        _by_task("maskProbability", "mask_probability", "goes with task {takers}; remove it or change task"),
        _by_task("labelField", "label_field", "goes with task {takers}; remove it or change task"),
        _by_task("blockSize", "block_size", "goes with {takers}; {others} pads rows instead, remove it"),
        _by_task(
            "isolateDocuments",
            "isolate_documents",
            "goes with task {takers}, whose attention sees only what is before a token; remove it or change task",
        ),
        Rule(
            f"self.task in {_CONVERSING} || !({_HAS_CONVERSATIONS})",
            f"conversations (messagesField, promptField) go with task {in_words(_CONVERSING)}; change task",
            lambda spec: spec.task in _CONVERSING or not has_conversations(spec.dataset),
            "dataset",
        ),
        Rule(
            f"!has(self.sample) || !has(self.sample.conversations) || ({_HAS_CONVERSATIONS})",
            "go with dataset.messagesField or promptField; write text for the model to continue into prompts",
            lambda spec: spec.sample is None or spec.sample.conversations is None or has_conversations(spec.dataset),
            "sample.conversations",
        ),
        Rule(
            "!has(self.output) || !has(self.output.pushToHub) || has(self.hubTokenSecretRef)",
            "pushToHub needs hubTokenSecretRef with a token that may write",
            lambda s: s.output is None or s.output.push_to_hub is None or s.hub_token_secret_ref is not None,
            "hubTokenSecretRef",
        ),
        Rule(
            "!has(self.training) || !has(self.training.adapter) || !has(self.model.fromConfig)",
            "an adapter needs a pretrained model; remove it, or set model.name instead of fromConfig",
            lambda s: s.training is None or s.training.adapter is None or s.model.from_config is None,
            "training.adapter",
        ),
        Rule(
            "!has(self.output) || !has(self.output.merge) || (has(self.training) && has(self.training.adapter))",
            "merge goes with training.adapter; remove it",
            lambda s: s.output is None or s.output.merge is None or bool(s.training and s.training.adapter),
            "output.merge",
        ),
        Rule(
            "!has(self.training) || !has(self.training.batchSize) || !has(self.resources) || "
            "(has(self.resources.nodes) ? self.resources.nodes : 1) * "
            "(has(self.resources.gpusPerNode) && self.resources.gpusPerNode > 0 ? self.resources.gpusPerNode : 1) "
            "<= self.training.batchSize",
            "fewer rows than nodes × gpusPerNode, each of which needs one; raise it, or take fewer devices",
            lambda s: s.training is None or not s.training.batch_size or ranks(s) <= s.training.batch_size,
            "training.batchSize",
        ),
        Rule(
            "!has(self.resources) || !has(self.resources.elastic) || !has(self.podTemplate) || "
            f"!has(self.podTemplate.labels) || !('{QUEUE_LABEL}' in self.podTemplate.labels)",
            f"{QUEUE_LABEL} admits all pods or none, resources.elastic wants fewer too; remove one of the two",
            lambda s: not (s.resources and s.resources.elastic and QUEUE_LABEL in labels(s)),
            "podTemplate.labels",
        ),
    )


def ranks(spec: LMFineTuneSpec) -> int:
    """Processes that train together: one for each GPU, or for each node without GPUs."""
    wanted = spec.resources
    return (wanted.nodes or 1) * max(1, wanted.gpus_per_node or 0) if wanted is not None else 1


def labels(spec: LMFineTuneSpec) -> dict[str, str]:
    """``spec.podTemplate.labels``."""
    return (spec.pod_template.labels if spec.pod_template else None) or {}
