"""``status`` of an LMFineTune: results and progress."""

import math
import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from lmft_api.reasons import Phase
from lmft_api.schema.types import ApiModel, list_map
from lmft_api.text.shown import printable

MAX_ATTEMPTS_KEPT = 32
MAX_CONDITIONS = 8
MAX_EVALUATIONS_KEPT = 64
MAX_MESSAGE = 4096

SUCCEEDED = "Succeeded"
"""Type of the condition with the outcome."""
FINISHED = "Finished"
"""Type of the condition that is True at either end, for those who wait."""
MOST = 2**63 - 1
"""Largest whole number that the API server stores."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


# As functions and not as bounds: the definition has them in its formats, int64 and date-time.
def _storable(number: int) -> int:
    if not 0 <= number <= MOST:
        raise ValueError(f"must be at least 0 and at most {MOST}")
    return number


def _time(text: str) -> str:
    if not _TIME.fullmatch(text):
        raise ValueError("must be a time such as 2026-01-31T12:00:00Z")
    datetime.fromisoformat(text.replace("Z", "+00:00"))
    return text


Count = Annotated[int, AfterValidator(_storable)]
Short = Annotated[str, StringConstraints(max_length=253), AfterValidator(printable)]
Number = Annotated[str, StringConstraints(max_length=32), AfterValidator(printable)]
Long = Annotated[str, StringConstraints(max_length=MAX_MESSAGE), AfterValidator(printable)]
Uri = Annotated[str, StringConstraints(max_length=2048), AfterValidator(printable)]
Timestamp = Annotated[str, StringConstraints(max_length=32), Field(json_schema_extra={"format": "date-time"})]
ToldTime = Annotated[Timestamp, AfterValidator(_time)]
"""A time that a pod tells, unlike those that come from the API server."""


def finite(text: str | None) -> float | None:
    """A figure to count with; None where a user's own image wrote something else, or nothing."""
    try:
        number = float(text) if text is not None else None
    except ValueError:
        return None
    return number if number is not None and math.isfinite(number) else None


class ConditionStatus(StrEnum):
    """Status of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """A condition, as in metav1.Condition."""

    type: Short
    """Finished is the one to wait for: True on success and on failure. Succeeded says which."""
    status: ConditionStatus
    """True, False or Unknown."""
    reason: Short
    """One of the documented reasons."""
    message: Long = ""
    """Human-readable message."""
    last_transition_time: Timestamp
    """When the status changed last."""
    observed_generation: int | None = None
    """Generation of the spec that this is about."""


class Progress(ApiModel):
    """Progress of the run."""

    percent: int | None = None
    """0 to 100."""
    display: Short | None = None
    """The percentage as text."""
    eta: Short | None = None
    """Time left, as text such as 3m10s."""
    step: int | None = None
    """Optimiser steps done."""
    total_steps: int | None = None
    """Optimiser steps in all."""
    epoch: Number | None = None
    """Epochs done, as a decimal."""
    loss: Number | None = None
    """Latest training loss."""
    tokens_per_second: int | None = None
    """Training throughput."""
    last_update_time: Timestamp | None = None
    """When the pod reported last."""


class SampleResult(ApiModel):
    """One prompt, answered before and after training."""

    prompt: Long
    """The prompt."""
    before: Long | None = None
    """The answer before training."""
    after: Long | None = None
    """The answer after training."""


class Results(ApiModel):
    """What came out."""

    display: Short | None = None
    """The result in short, such as perplexity 49.61 or accuracy 0.91."""
    perplexity: Number | None = None
    """exp of the mean loss over held-out target tokens, after the newest evaluation."""
    baseline_perplexity: Number | None = None
    """The same before training."""
    eval_loss: Number | None = None
    """Mean loss over held-out target tokens, nats."""
    baseline_eval_loss: Number | None = None
    """The same before training."""
    accuracy: Number | None = None
    """Share of held-out rows labelled right (SequenceClassification)."""
    baseline_accuracy: Number | None = None
    """The same before training."""
    samples: Annotated[list[SampleResult], Field(max_length=16)] | None = None
    """Samples before and after."""
    model_uri: Uri | None = Field(default=None, alias="modelURI")
    """Folder of the model; loads with pipeline(). The adapter's where that was not merged."""
    adapter_uri: Uri | None = Field(default=None, alias="adapterURI")
    """Folder of the adapter that was trained."""
    report_uri: Uri | None = Field(default=None, alias="reportURI")
    """The report page."""
    perplexity_standard_error: Number | None = None
    """How far the perplexity may be off by the choice of the held-out blocks, once the run is over."""
    baseline_perplexity_standard_error: Number | None = None
    """The same before training."""
    eval_loss_standard_error: Number | None = None
    """Standard error of evalLoss over the held-out blocks (SequenceClassification: rows), nats."""
    baseline_eval_loss_standard_error: Number | None = None
    """The same before training."""
    accuracy_standard_error: Number | None = None
    """Standard error of the accuracy over the held-out rows."""
    baseline_accuracy_standard_error: Number | None = None
    """The same before training."""


class EvaluationResult(ApiModel):
    """One evaluation during training."""

    step: Count
    """Optimiser steps done."""
    epoch: Number
    """Epochs done."""
    train_loss: Number | None = None
    """Training loss at that step."""
    eval_loss: Number
    """Held-out loss."""
    perplexity: Number | None = None
    """Held-out perplexity."""
    accuracy: Number | None = None
    """Held-out accuracy."""


class CheckpointStatus(ApiModel):
    """The newest complete checkpoint."""

    step: Count
    """Optimiser steps done when it was saved."""
    uri: Uri
    """Where it is stored."""
    time: ToldTime | None = None
    """When it was complete."""


class Attempt(ApiModel):
    """One Job of the run."""

    number: Count
    """From 1."""
    job: Short
    """Name of the Job."""
    stage: Short | None = None
    """All, Prepare or Train."""
    spec_hash: Short | None = None
    """SHA-256 of the spec that it prepares; until training begins the spec may change, and is then prepared again."""
    nodes: Count | None = None
    """Pods that train together, where the manifest says how many."""
    gpus_per_node: Count | None = None
    """GPUs of each, where the manifest says how many."""
    placed_nodes: Count | None = None
    """Nodes of the next attempt, where this one was ended for want of room for its pods, or for room for more again."""
    start_time: Timestamp | None = None
    """When its pod started."""
    end_time: Timestamp | None = None
    """When it ended."""
    reason: Short | None = None
    """How it ended."""
    message: Long | None = None
    """How it ended, as a human-readable message."""
    exit_code: int | None = None
    """Exit code of the container."""
    highest_attempt: Count | None = None
    """Highest attempt of the run that it found in storage, where that is above its own: the next one is above both."""
    cause: Short | None = None
    """Kubernetes' reason why a node rejected the pod, such as OutOfcpu or UnexpectedAdmissionError."""
    resumed_from_step: int | None = None
    """Step of the checkpoint that it started from."""
    lost_steps: int | None = None
    """Steps beyond that one which earlier attempts had done, the furthest of them, and which had to be repeated."""
    checkpoint_step: int | None = None
    """Step of the run's newest checkpoint when it ended."""
    adjustments: Annotated[list[Long], Field(max_length=16)] | None = None
    """What the job adjusted in order to continue, such as the batch size."""


class Usage(ApiModel):
    """What the run has used, over all attempts."""

    seconds: Count = 0
    """Running time of its pods."""
    gpu_seconds: Count = 0
    """The same, times GPUs."""


class Provenance(ApiModel):
    """Where the result came from."""

    image: Short | None = None
    """Image of the job."""
    model_revision: Short | None = None
    """Commit of the model on the hub."""
    dataset_fingerprint: Short | None = None
    """Fingerprint of the prepared data."""
    spec_hash: Short | None = None
    """SHA-256 of the spec without its mutable fields."""
    seed: Count | None = None
    """Seed."""
    resumed_from: Uri | None = None
    """Model or checkpoint of the run that spec.resumeFrom names."""
    versions: Annotated[dict[Short, Short], Field(max_length=32)] | None = None
    """Versions of the libraries."""


class LMFineTuneStatus(ApiModel):
    """Observed state of a run."""

    observed_generation: int | None = None
    """Generation of the spec that was seen last."""
    phase: Phase | None = None
    """Phase for display; conditions are the API."""
    conditions: (
        Annotated[list[Condition], Field(max_length=MAX_CONDITIONS, json_schema_extra=list_map("type"))] | None
    ) = None
    """Succeeded: Unknown while it runs, True or False at the end. Finished: True on success and on failure."""
    model: Short | None = None
    """Model in short, for kubectl get."""
    progress: Progress | None = None
    """Progress of training."""
    results: Results | None = None
    """What came out."""
    evaluations: Annotated[list[EvaluationResult], Field(max_length=MAX_EVALUATIONS_KEPT)] | None = None
    """Evaluations during training; thinned evenly when full."""
    checkpoint: CheckpointStatus | None = None
    """Newest complete checkpoint."""
    attempts: (
        Annotated[list[Attempt], Field(max_length=MAX_ATTEMPTS_KEPT, json_schema_extra=list_map("number"))] | None
    ) = None
    """Jobs of the run, newest last."""
    failures: int | None = None
    """Attempts that failed and counted towards spec.maxRetries."""
    interruptions: int | None = None
    """Attempts that were interrupted."""
    start_time: Timestamp | None = None
    """When the first pod started."""
    completion_time: Timestamp | None = None
    """When the run ended."""
    usage: Usage | None = None
    """What it used."""
    provenance: Provenance | None = None
    """Where the result came from."""

    @property
    def succeeded(self) -> Condition | None:
        """The condition with the outcome."""
        return next((c for c in self.conditions or () if c.type == SUCCEEDED), None)

    @property
    def reason(self) -> str | None:
        """Reason of that condition."""
        return self.succeeded.reason if self.succeeded else None

    @property
    def ended(self) -> bool:
        """Whether the run is over, one way or the other."""
        return self.succeeded is not None and self.succeeded.status != ConditionStatus.UNKNOWN
