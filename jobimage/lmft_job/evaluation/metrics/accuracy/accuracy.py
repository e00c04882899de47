"""Accuracy as an ``evaluate`` module."""

from collections.abc import Sequence

import datasets
import evaluate

_INPUTS = """
Args:
    predictions (list of int): predicted classes.
    references (list of int): true classes.
Returns:
    accuracy: share predicted right, 0 to 1.
"""


class Accuracy(evaluate.Metric):  # type: ignore[misc]
    """Share of rows labelled correctly."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Share of rows whose predicted class is the true one.",
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Value("int32"), "references": datasets.Value("int32")}),
        )

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        right = sum(int(guess == truth) for guess, truth in zip(predictions, references, strict=True))
        return {"accuracy": right / len(references)}
