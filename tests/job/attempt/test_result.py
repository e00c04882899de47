"""Figures on their way from the report into the status."""

import math

from lmft_api.status import EvaluationResult
from lmft_api.wire.report import EvaluationRow
from lmft_job.attempt.result import evaluation_result


def test_a_model_that_is_far_off_still_has_a_result() -> None:
    far_off = EvaluationRow(step=60, epoch=1.7, eval_loss=690.0, perplexity=math.exp(690.0))

    told = evaluation_result(far_off)

    assert isinstance(told, EvaluationResult)
    assert told.perplexity == "4.60e+299"
