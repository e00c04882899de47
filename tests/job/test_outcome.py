"""Figures on their way from the report into the status."""

import math

import pytest

from lmft_api.status import EvaluationResult
from lmft_api.wire.report import EvaluationRow
from lmft_job.attempt.result import evaluation_result, number


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, None), (98.434, "98.43"), (1_270_000.0, "1270000.00"), (5.685e32, "5.69e+32"), (math.inf, "inf")],
)
def test_a_figure_is_text_of_a_bounded_length(value: float | None, text: str | None) -> None:
    assert number(value, 2) == text


def test_a_model_that_is_far_off_still_has_a_result() -> None:
    far_off = EvaluationRow(step=60, epoch=1.7, eval_loss=690.0, perplexity=math.exp(690.0))

    told = evaluation_result(far_off)

    assert isinstance(told, EvaluationResult)
    assert told.perplexity == "4.60e+299"
