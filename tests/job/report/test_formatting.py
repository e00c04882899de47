"""Figures in words."""

import pytest
from support.report_samples import demo_report

from lmft_api.wire.report import ResultFigures
from lmft_job.report import formatting
from lmft_job.report.page import render_page
from lmft_job.report.tables import figure_rows


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (7_000_000_000, "7B"),
        (1_543_714_304, "1.54B"),
        (999_999_999, "1B"),
        (81_912_576, "81.9M"),
        (3_600_000, "3.6M"),
        (999_499, "999K"),
        (999_500, "1M"),
        (918, "918"),
    ],
)
def test_a_models_size_is_said_as_people_do(number: int, said: str) -> None:
    assert formatting.short_count(number) == said


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (2034.0, 98.43, "−95.2 %"),
        (2.0, 3e129, "+1.5e+131 %"),
        (1e-300, 1e300, "–"),
        (0.0, 3.0, "–"),
        (5.0, 6e5, "+1.2e+07 %"),
    ],
)
def test_a_change_fits_its_cell_however_far_off_the_model_is(before: float, after: float, change: str) -> None:
    results = ResultFigures(perplexity=after, baseline_perplexity=before)
    [row] = figure_rows(demo_report().model_copy(update={"results": results}))
    assert row[3] == change
    assert max(map(len, row)) < 20


def test_what_took_no_time_is_not_listed() -> None:
    # The last evaluation is usually one of the training.
    report = demo_report().model_copy(update={"timings": {"training": 41.0, "evaluation": 0.0, "saving": 0.06}})
    page = render_page(report, []).decode()
    assert '<th scope="row">Training</th><td>41 s</td>' in page
    assert "Saving" in page
    assert "0.0 s" not in page
