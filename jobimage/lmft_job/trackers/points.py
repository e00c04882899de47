"""What is sent to trackers: the lines of ``metrics.jsonl``, by the names that transformers' Trainer uses."""

import json
import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

TRAIN, EVAL = "train/", "eval/"
_STEP_NAMES = {
    "loss": "loss",
    "learningRate": "learning_rate",
    "gradientNorm": "grad_norm",
    "tokensPerSecond": "tokens_per_second",
    "epoch": "epoch",
}
_EVALUATION_NAMES = {
    "evalLoss": "loss",
    "perplexity": "perplexity",
    "accuracy": "accuracy",
    "evalLossStandardError": "loss_standard_error",
    "accuracyStandardError": "accuracy_standard_error",
}


@dataclass(frozen=True)
class Point:
    """Values at a step.

    Attributes:
        step: optimiser steps done; 0 is the model before training.
        time: when it was taken from the run, UNIX seconds.
        values: by name, such as ``train/loss`` or ``eval/perplexity``; only what is known and finite.
        evaluation: whether the held-out data was evaluated.
    """

    step: int
    time: float
    values: dict[str, float] = field(hash=False)
    evaluation: bool = False


@dataclass(frozen=True)
class Position:
    """What a tracker has: the last step, and the step of the last evaluation; before the first -1."""

    step: int = -1
    evaluation: int = -1

    def lacks(self, point: Point) -> bool:
        """Whether a point is not there yet."""
        return point.step > (self.evaluation if point.evaluation else self.step)


def points(lines: bytes, time: float) -> Iterator[Point]:
    """The points of lines of ``metrics.jsonl``; raises LookupError, TypeError or ValueError where they are none."""
    for line in lines.splitlines():
        row: dict[str, Any] = json.loads(line)
        evaluation = row.get("evaluation")
        names, prefix = (_STEP_NAMES, TRAIN) if evaluation is None else (_EVALUATION_NAMES, EVAL)
        given = row if evaluation is None else evaluation
        values = {f"{prefix}{names[key]}": float(given[key]) for key in names if given.get(key) is not None}
        known = {name: value for name, value in values.items() if math.isfinite(value)}
        yield Point(operator.index(row["step"]), time, known, evaluation is not None)
