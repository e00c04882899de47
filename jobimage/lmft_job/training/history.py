"""History of a run so far; stored in every checkpoint, so that a resumed run's history has no gap."""

import json
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmft_api.wire.layout import STATE_FILE
from lmft_api.wire.report import CurvePoint, EvaluationRow, ResumePoint
from lmft_api.wire.versions import FIRST_FORMAT, NewerFormatError, require_format
from lmft_job.errors import NewerReleaseError
from lmft_job.evaluation.held_out import HeldOutFigures
from lmft_job.observers.metrics import Lines, StepLog

LOSSES_FILE = "lmft_losses.f64"


@dataclass(frozen=True)
class EvaluationPoint:
    """One evaluation during training."""

    step: int
    epoch: float
    train_loss: float | None
    figures: HeldOutFigures

    def evaluation(self) -> EvaluationRow:
        """As in the report."""
        return EvaluationRow(
            step=self.step,
            epoch=self.epoch,
            train_loss=self.train_loss,
            **{name: value for name, value in self.figures.by_name().items() if name in EvaluationRow.model_fields},
        )

    def to_json(self) -> dict[str, Any]:
        """As in checkpoints."""
        return {
            "step": self.step,
            "epoch": self.epoch,
            "train_loss": self.train_loss,
            "figures": self.figures.to_json(),
        }

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> "EvaluationPoint":
        """Read back; raises KeyError if a field is missing."""
        return cls(
            step=written["step"],
            epoch=written["epoch"],
            train_loss=written.get("train_loss"),
            figures=HeldOutFigures.from_json(written["figures"]),
        )


@dataclass
class TrainingHistory:
    """History of a run; mutable while it trains.

    Attributes:
        losses: training loss of every step, in order; step n has index n - 1.
        evaluations: oldest first.
        tokens: number of tokens seen in training.
        seconds: time spent in training steps.
        saving_seconds: time that training waited for checkpoints.
        resumes: every start from a checkpoint, oldest first.
        steps: learning rate, gradient norm and speed of every step.
    """

    losses: "array[float]" = field(default_factory=lambda: array("d"))
    evaluations: list[EvaluationPoint] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0
    saving_seconds: float = 0.0
    resumes: list[ResumePoint] = field(default_factory=list)
    steps: StepLog = field(default_factory=StepLog)

    def save(self, folder: Path) -> None:
        """Write into a checkpoint's folder."""
        body = {
            "tokens": self.tokens,
            "seconds": self.seconds,
            "saving_seconds": self.saving_seconds,
            "evaluations": [measured.to_json() for measured in self.evaluations],
            "resumes": [resume.model_dump() for resume in self.resumes],
        }
        (folder / STATE_FILE).write_text(json.dumps(body))
        (folder / LOSSES_FILE).write_bytes(self.losses.tobytes())
        self.steps.save(folder)

    @classmethod
    def load(cls, folder: Path) -> "TrainingHistory":
        """Read from a checkpoint's folder.

        Raises:
            NewerReleaseError: only a newer release can read it.
        """
        body = json.loads((folder / STATE_FILE).read_text())
        try:
            require_format(body, FIRST_FORMAT, f"the checkpoint's {STATE_FILE}")
        except NewerFormatError as error:
            raise NewerReleaseError(str(error)) from error
        losses = array("d")
        losses.frombytes((folder / LOSSES_FILE).read_bytes())
        evaluations = [EvaluationPoint.from_json(entry) for entry in body["evaluations"]]
        resumes = [ResumePoint.model_validate(entry) for entry in body["resumes"]]
        waited = body.get("saving_seconds", 0.0)  # unknown to earlier releases
        return cls(losses, evaluations, body["tokens"], body["seconds"], waited, resumes, StepLog.load(folder))

    def evaluated(self, step: int) -> bool:
        """Whether there is an evaluation at this step."""
        return any(measured.step == step for measured in self.evaluations)

    def train_loss_since_evaluation(self) -> float | None:
        """Mean training loss of the steps since the last evaluation; None if there are none."""
        since = self.evaluations[-1].step if self.evaluations else 0
        recent = self.losses[since:]
        return sum(recent) / len(recent) if recent else None

    def best(self) -> EvaluationPoint | None:
        """The evaluation with the lowest loss; the earliest if equal."""
        return min(self.evaluations, key=lambda measured: measured.figures.loss, default=None)

    def exhausted(self, patience: int | None) -> bool:
        """Whether the last ``patience`` evaluations brought no improvement."""
        best = self.best()
        if patience is None or best is None:
            return False
        return len(self.evaluations) - 1 - self.evaluations.index(best) >= patience

    def metrics(self, lines: Lines, before: EvaluationRow | None) -> bytes:
        """The next lines of ``metrics.jsonl``, also from another thread while it trains.

        Args:
            lines: what was written before.
            before: figures of the model before training.
        """
        # A step's loss is known before the rest of it (an older release knew no rest), and its evaluation after both.
        losses = self.losses[: self.steps.last or None]
        first = [] if before is None else [before]
        measured = self.evaluations[max(0, lines.evaluations - len(first)) :]
        evaluations = [*first[lines.evaluations :], *(point.evaluation() for point in measured)]
        return lines.more(losses, self.steps, evaluations)

    def curve(self) -> list[CurvePoint]:
        """Every step's loss, and what else is known of it."""
        return [
            CurvePoint.model_validate({**self.steps.row(step), "loss": loss})
            for step, loss in enumerate(self.losses, start=1)
        ]


@dataclass(frozen=True)
class Resumed:
    """The checkpoint that this attempt resumes from: its local folder, and its position in the run."""

    folder: Path
    point: ResumePoint
