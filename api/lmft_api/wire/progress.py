"""Live progress in the Kubeflow Trainer's wire format, bounded and typed.

Format: ``{"trainerStatus": {"progressPercentage", "estimatedRemainingSeconds", "metrics": [{"name", "value"}],
"lastUpdatedTime"}}``, posted to ``KUBEFLOW_TRAINER_SERVER_URL``; values are text.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from lmft_api.schema.types import ApiModel

SERVER_URL_VARIABLE = "KUBEFLOW_TRAINER_SERVER_URL"
CA_VARIABLE = "KUBEFLOW_TRAINER_SERVER_CA_CERT"
TOKEN_VARIABLE = "KUBEFLOW_TRAINER_SERVER_TOKEN"  # noqa: S105 - its name
MAX_BODY_BYTES = 16 * 1024
MAX_METRICS = 64


class MetricName(StrEnum):
    """Names that both sides know: the Trainer's own, and ours.

    The figures of :mod:`lmft_api.figures` go by their names there; their baselines too.
    """

    LOSS = "loss"
    LEARNING_RATE = "learning_rate"
    CURRENT_STEP = "current_step"
    TOTAL_STEPS = "total_steps"
    CURRENT_EPOCH = "current_epoch"
    TOKENS_PER_SECOND = "tokens_per_second"
    EVAL_STEP = "eval_step"
    """Step of the newest evaluation, of which all figures of its kind are."""
    EVAL_EPOCH = "eval_epoch"
    EVAL_TRAIN_LOSS = "eval_train_loss"
    CHECKPOINT_STEP = "checkpoint_step"
    """Step of the newest complete checkpoint."""
    RESUMED_FROM_STEP = "resumed_from_step"
    LOST_STEPS = "lost_steps"
    PHASE = "phase"
    """What the job does just now, a :class:`JobPhase`; sent at once when it changes."""
    STRAGGLER = "straggler"
    """The rank that every step waits for, ``rank 3 on node-b (1.8 times the median)``; empty once there is none."""


class JobPhase(StrEnum):
    """What the job does once model and data are there; values of the metric ``phase``."""

    TRAINING = "Training"
    EVALUATING = "Evaluating"
    SAMPLING = "Sampling"
    SAVING = "Saving"


class Metric(ApiModel):
    """One figure by name."""

    model_config = ConfigDict(strict=False, coerce_numbers_to_str=True, extra="ignore")

    name: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_./ -]+$")]
    """A :class:`MetricName` or that of a figure; a user's own image may send others, which nobody reads."""
    value: Annotated[str, StringConstraints(max_length=64)]
    """The figure as text."""


class TrainerStatus(ApiModel):
    """How far a pod is."""

    model_config = ConfigDict(strict=False, extra="ignore")

    progress_percentage: Annotated[int, Field(ge=0, le=100)] | None = None
    """0 to 100."""
    estimated_remaining_seconds: Annotated[int, Field(ge=0, le=315_360_000)] | None = None
    """Time left."""
    metrics: Annotated[list[Metric], Field(max_length=MAX_METRICS, default_factory=list)]
    """Figures."""
    last_updated_time: Annotated[str, StringConstraints(max_length=40)] | None = None
    """When this was true, RFC 3339."""

    def metric(self, name: str) -> str | None:
        """The value of a metric, or None."""
        return next((metric.value for metric in self.metrics if metric.name == name), None)


class ProgressMessage(ApiModel):
    """Body of a POST."""

    model_config = ConfigDict(strict=False, extra="ignore")

    trainer_status: TrainerStatus
    """The report."""
