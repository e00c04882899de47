"""``metrics.jsonl``: every step and every evaluation of a run, one JSON object a line.

A line of a step has ``step``, ``epoch``, ``loss``, ``learningRate`` (with which the step was made), ``gradientNorm``
(before clipping) and ``tokensPerSecond`` (smoothed); steps that an older release trained have ``step`` and ``loss``. A
line of an evaluation has ``step``, ``epoch`` and its figures in ``evaluation``; step 0 is the model before training.
What is not finite is null. The steps are those of the history in checkpoints: a resumed run repeats none of them.
:mod:`lmft_job.observers.live_metrics` stores it while the run trains.
"""

import json
import math
from array import array
from collections import deque
from collections.abc import Sequence
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

    @property
    def last(self) -> int:
        """The newest step; 0 if none is known."""
        return int(self.values[-len(_COLUMNS)]) if self.values else 0

    def row(self, step: int) -> dict[str, Any]:
        """What is known of a step; its number alone if an older release trained it. Steps have no gap."""
        width = len(_COLUMNS)
        at = (step - int(self.values[0])) * width if self.values else -1
        if not 0 <= at <= len(self.values) - width:
            return {"step": step}
        return dict(zip(_COLUMNS, self.values[at : at + width], strict=True)) | {"step": step}


@dataclass
class Lines:
    """The file's lines, as far as they are known; each call of ``more`` continues where the last one ended.

    Attributes:
        steps: written.
        evaluations: written.
        most: steps of a call; None for all.
    """

    steps: int = 0
    evaluations: int = 0
    most: int | None = None

    def more(self, losses: "array[float]", log: StepLog, evaluations: Sequence[EvaluationRow]) -> bytes:
        """Lines that were not written yet: steps in order, and each evaluation after its step.

        Args:
            losses: training loss of every step; step n has index n - 1. All of them were written to ``log`` too.
            log: what else is known of them.
            evaluations: those that were not written, oldest first; step 0 is the model before training.
        """
        lines: list[dict[str, Any]] = []
        left = deque(evaluations)

        def evaluated(step: int) -> None:
            while left and left[0].step <= step:
                row = left.popleft()
                figures = row.model_dump(by_alias=True, exclude_none=True, exclude={"step", "epoch"})
                lines.append({"step": row.step, "epoch": row.epoch, "evaluation": figures})
                self.evaluations += 1

        evaluated(self.steps)
        last = len(losses) if self.most is None else min(len(losses), self.steps + self.most)
        while self.steps < last:
            self.steps += 1
            row = log.row(self.steps)
            lines.append({"step": self.steps, "epoch": row.get("epoch"), "loss": losses[self.steps - 1], **row})
            evaluated(self.steps)
        return "".join(json.dumps(_finite(line), ensure_ascii=False) + "\n" for line in lines).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
