"""``spec`` of an LMFineTune: what to train, on what, how, and where the result goes.

Defaults that differ by task are resolved in :mod:`lmft_api.spec.resolved`, not here: an API server fills defaults in
before its rules run, so a default for ``epochs`` would make "epochs or maxSteps" always both.
"""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from lmft_api.schema.rules import Rule
from lmft_api.schema.types import ApiModel, DnsSubdomain
from lmft_api.spec.dataset import Dataset
from lmft_api.spec.model import HubTokenRef, Model
from lmft_api.spec.output import Output, Sample
from lmft_api.spec.pod import PodTemplate, Resources
from lmft_api.spec.training import CheckpointPolicy, Evaluation, Training


class Task(StrEnum):
    """What the model learns."""

    CAUSAL_LM = "CausalLM"
    MASKED_LM = "MaskedLM"
    SEQUENCE_CLASSIFICATION = "SequenceClassification"


class Preparation(StrEnum):
    """Where tokenising happens."""

    AUTO = "Auto"
    SEPARATE = "Separate"
    INLINE = "Inline"


class ResumeFrom(ApiModel):
    """Another run to start from."""

    name: DnsSubdomain
    """Name of an LMFineTune in the same namespace; it is waited for. One that failed gives its newest checkpoint."""


class LMFineTuneSpec(ApiModel):
    """A fine-tuning run. Only model, dataset and, without a platform default, output are required."""

    task: Task = Task.CAUSAL_LM
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
    hub_token_secret_ref: HubTokenRef | None = None
    """Token for the model, the data set and the push."""
    resources: Resources | None = None
    """What the pod asks for."""
    pod_template: PodTemplate | None = None
    """How the pod fits into the cluster."""
    preparation: Preparation | None = None
    """Auto prepares on a CPU in a Job of its own before a GPU is taken. Default: Auto."""
    resume_from: ResumeFrom | None = None
    """Start from the model, or else the newest checkpoint, of another run in this namespace."""
    suspend: bool | None = None
    """Stop with a checkpoint and free what the run holds; false goes on."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=315_360_000)] | None = None
    """Delete the resource this long after it ended; storage stays."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=315_360_000)] | None = None
    """Longest running time, over all attempts."""
    max_retries: Annotated[int, Field(ge=0, le=100)] | None = None
    """Attempts after failures that may pass; interruptions do not count. Default: 3."""

    rules: ClassVar = (
        Rule(
            "self.task == 'MaskedLM' || !has(self.dataset.maskProbability)",
            "maskProbability goes with task MaskedLM; remove it or change task",
            lambda s: s.task == Task.MASKED_LM or s.dataset.mask_probability is None,
            "dataset.maskProbability",
        ),
        Rule(
            "self.task == 'SequenceClassification' || !has(self.dataset.labelField)",
            "labelField goes with task SequenceClassification; remove it or change task",
            lambda s: s.task == Task.SEQUENCE_CLASSIFICATION or s.dataset.label_field is None,
            "dataset.labelField",
        ),
        Rule(
            "self.task != 'SequenceClassification' || !has(self.dataset.blockSize)",
            "blockSize goes with CausalLM and MaskedLM; SequenceClassification pads rows instead, remove it",
            lambda s: s.task != Task.SEQUENCE_CLASSIFICATION or s.dataset.block_size is None,
            "dataset.blockSize",
        ),
        Rule(
            "!has(self.output) || !has(self.output.pushToHub) || has(self.hubTokenSecretRef)",
            "pushToHub needs hubTokenSecretRef with a token that may write",
            lambda s: s.output is None or s.output.push_to_hub is None or s.hub_token_secret_ref is not None,
            "hubTokenSecretRef",
        ),
    )
