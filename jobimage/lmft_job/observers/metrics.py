"""``metrics.jsonl``: every step and every evaluation of a run, one JSON object a line.

A line of a step has ``step``, ``epoch``, ``loss``, ``learningRate`` (with which the step was made), ``gradientNorm``
(before clipping) and ``tokensPerSecond`` (smoothed); steps that an older release trained have ``step`` and ``loss``. A
line of an evaluation has ``step``, ``epoch`` and its figures in ``evaluation``; step 0 is the model before training.
What is not finite is null. The steps are those of the history in checkpoints: a resumed run repeats none of them.
"""

import json
import math
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmft_api.wire.report import EvaluationRow

STEPS_FILE = "lmft_steps.f64"
_COLUMNS = ("step", "epoch", "learningRate", "gradientNorm", "tokensPerSecond")


@dataclass
class StepLog:
    """What is known of each step beside its loss; mutable while the run trains.

    Attributes:
        values: one row of numbers for each step, in the order of ``_COLUMNS``; NaN for what is not known.
        learning_rate: with which the step in progress is made.
        gradient_norm: its gradient's norm, before clipping.
    """

    values: "array[float]" = field(default_factory=lambda: array("d"))
    learning_rate: float = math.nan
    gradient_norm: float = math.nan

    def update(self, learning_rate: float, gradient_norm: float | None) -> None:
        """The gradient of the step in progress is complete."""
        self.learning_rate = learning_rate
        self.gradient_norm = math.nan if gradient_norm is None else float(gradient_norm)

    def step_done(self, step: int, epoch: float, tokens_per_second: float | None) -> None:
        """An optimiser step is done."""
        rate = math.nan if tokens_per_second is None else tokens_per_second
        self.values.extend((step, epoch, self.learning_rate, self.gradient_norm, rate))
        self.learning_rate = self.gradient_norm = math.nan

    def save(self, folder: Path) -> None:
        """Write into a checkpoint's folder."""
        (folder / STEPS_FILE).write_bytes(self.values.tobytes())

    @classmethod
    def load(cls, folder: Path) -> "StepLog":
        """Read from a checkpoint's folder; empty if an older release wrote it."""
        values, path = array("d"), folder / STEPS_FILE
        if path.is_file():
            data = path.read_bytes()
            values.frombytes(data[: len(data) // (8 * len(_COLUMNS)) * 8 * len(_COLUMNS)])
        return cls(values)

    def by_step(self) -> dict[int, dict[str, Any]]:
        """Each step's row, by its number."""
        width = len(_COLUMNS)
        rows = (self.values[at : at + width] for at in range(0, len(self.values), width))
        return {int(row[0]): dict(zip(_COLUMNS, row, strict=True)) | {"step": int(row[0])} for row in rows}


def metrics_lines(losses: "array[float]", steps: StepLog, evaluations: list[EvaluationRow]) -> bytes:
    """The file: steps in order, and each evaluation after its step.

    Args:
        losses: training loss of every step; step n has index n - 1.
        steps: what else is known of them.
        evaluations: with step 0 for the model before training.
    """
    known = steps.by_step()
    after: dict[int, list[EvaluationRow]] = {}
    for evaluation in evaluations:
        after.setdefault(evaluation.step, []).append(evaluation)
    lines = []
    for step in range(len(losses) + 1):
        if step:
            row = known.get(step, {"step": step})
            lines.append({"step": step, "epoch": row.get("epoch"), "loss": losses[step - 1], **row})
        for evaluation in after.get(step, ()):
            figures = evaluation.model_dump(by_alias=True, exclude_none=True, exclude={"step", "epoch"})
            lines.append({"step": step, "epoch": evaluation.epoch, "evaluation": figures})
    return "".join(json.dumps(_finite(line), ensure_ascii=False) + "\n" for line in lines).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
