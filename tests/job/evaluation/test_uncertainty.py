"""Standard errors: against what resampling the held-out data shows, at the borders, and in words."""

import io
import math

import numpy as np
import pytest
from support.report_samples import causal_report, classification_report, demo_report

from lmft_api.wire.report import Report
from lmft_job.evaluation.chance import may_be_chance
from lmft_job.evaluation.uncertainty import Units, ratio_error, share_error
from lmft_job.observers.terminal.console import ConsoleObserver
from lmft_job.report.card import render_card
from lmft_job.report.formatting import Verdict, outcome, verdict
from lmft_job.report.page import render_page


def test_the_error_of_a_mean_over_blocks_is_what_drawing_other_blocks_shows() -> None:
    # given blocks whose losses differ, and whose numbers of targets do, as with masks
    draw = np.random.default_rng(5)
    targets = draw.integers(5, 30, 400).astype(np.float64)
    losses = targets * draw.normal(3.0, 0.4, 400)
    # when the blocks are drawn again and again (the bootstrap)
    picks = draw.integers(0, 400, (4000, 400))
    means = losses[picks].sum(1) / targets[picks].sum(1)
    # then their mean varies as the formula says, which knows one draw
    assert ratio_error(losses, targets) == pytest.approx(means.std(), rel=0.06)


def test_with_equal_blocks_it_is_the_textbooks_standard_error_of_a_mean() -> None:
    losses = np.array([1.0, 4.0, 2.0, 5.0])
    error = ratio_error(losses * 127, np.full(4, 127.0))
    assert error == pytest.approx(losses.std(ddof=1) / math.sqrt(4))


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        ([1, 0, 1, 0], math.sqrt(0.25 / 3)),
        ([1] * 20, math.sqrt(21 / 22 * 1 / 22 / 20)),
        ([0] * 20, math.sqrt(21 / 22 * 1 / 22 / 20)),
        ([1], math.sqrt(2 / 3 * 1 / 3)),
    ],
)
def test_a_share_is_never_certain(right: list[int], expected: float) -> None:
    assert share_error(np.array(right, np.float64)) == pytest.approx(expected)


def test_one_block_or_none_tells_nothing_and_blocks_without_targets_do_not_count() -> None:
    assert ratio_error(np.array([3.0]), np.array([1.0])) is None
    assert ratio_error(np.array([]), np.array([])) is None
    with_empty = ratio_error(np.array([3.0, 0.0, 5.0]), np.array([1.0, 0.0, 1.0]))
    assert with_empty == ratio_error(np.array([3.0, 5.0]), np.array([1.0, 1.0]))


def test_a_change_is_compared_block_by_block() -> None:
    # given blocks that differ much more from each other than each does from before to after
    draw = np.random.default_rng(1)
    first = draw.normal(300, 60, 100)
    before = Units(first, np.full(100, 100.0))
    after = Units(first - draw.normal(5, 2, 100), np.full(100, 100.0))
    # then the change is certain although each figure alone is not
    change, error = (after.losses.sum() - before.losses.sum()) / 10_000, after.loss_change_error(before)
    assert after.loss_error is not None
    assert error is not None
    assert abs(change) < after.loss_error
    assert not may_be_chance(change, error)


def test_units_are_read_back_as_they_were_and_nothing_else_is_taken_for_them() -> None:
    units = Units(np.array([1.5, 2.5]), np.array([3.0, 4.0]), np.array([1.0, 0.0]))
    read = Units.from_bytes(units.to_bytes())
    assert [part.tolist() for part in (read.losses, read.targets, read.right) if part is not None] == [
        [1.5, 2.5],
        [3.0, 4.0],
        [1.0, 0.0],
    ]
    for damaged in (b"", b"nonsense", units.to_bytes()[:40], units.to_bytes()[:-3]):
        with pytest.raises(ValueError):  # noqa: PT011 - numpy's own words
            Units.from_bytes(damaged)
    other = Units(np.array([1.0]), np.array([1.0]))
    assert units.loss_change_error(other) is None
    assert units.accuracy_change_error(other) is None


def with_results(report: Report, **figures: float | None) -> Report:
    return report.model_copy(update={"results": report.results.model_copy(update=figures)})


RANDOM_LABELS = with_results(
    classification_report(),
    accuracy=0.575,
    baseline_accuracy=0.425,
    accuracy_standard_error=0.0792,
    baseline_accuracy_standard_error=0.0792,
    accuracy_change_standard_error=0.111,
    eval_loss_standard_error=0.01,
)
WORSE = with_results(
    causal_report(),
    perplexity=80.0,
    eval_loss=math.log(80.0),
    perplexity_standard_error=0.8,
    eval_loss_standard_error=0.01,
    eval_loss_change_standard_error=0.004,
)
BETTER = with_results(
    demo_report(),
    perplexity_standard_error=1.94,
    baseline_perplexity_standard_error=9.2,
    eval_loss_standard_error=0.0219,
    baseline_eval_loss_standard_error=0.0045,
    eval_loss_change_standard_error=0.0217,
)
SAID = {
    "chance": (RANDOM_LABELS, Verdict.CHANCE, "Accuracy went from 42.5 % to 57.5 ± 7.9 % (no significant change"),
    "worse": (WORSE, Verdict.WORSE, "Perplexity rose from 62.30 to 80.00 ± 0.80 (worse than before training) on"),
    "better": (BETTER, Verdict.BETTER, "Perplexity fell from 7,912 to 88.30 ± 1.9 on 1,021 held-out blocks"),
    "unknown, as of an earlier version": (demo_report(), Verdict.BETTER, "Perplexity fell from 7,912 to 88.30 on"),
    "worse, with errors of the figures alone": (
        with_results(RANDOM_LABELS, accuracy=0.1, accuracy_change_standard_error=None),
        Verdict.WORSE,
        "Accuracy fell from 42.5 % to 10.0 ± 7.9 % (worse than before training)",
    ),
    "the same": (with_results(RANDOM_LABELS, accuracy=0.425), Verdict.CHANCE, "Accuracy stayed at 42.5 ± 7.9 % on"),
}


@pytest.mark.parametrize("case", SAID)
def test_the_sentence_heeds_what_the_change_is_worth(case: str) -> None:
    report, found, said = SAID[case]
    assert verdict(report.results) == found
    assert outcome(report).startswith(said), outcome(report)


@pytest.mark.parametrize(("report", "said"), [(RANDOM_LABELS, "57.5 ± 7.9 %"), (WORSE, "80.00 ± 0.80")])
def test_console_page_and_card_show_the_error_and_say_what_it_is(report: Report, said: str) -> None:
    stream = io.StringIO()
    with ConsoleObserver(stream) as console:
        console.done(report)
    page, card = render_page(report, []).decode(), render_card(report).replace("\\", "")
    for text in (stream.getvalue(), page, card):
        assert said in text
        assert "standard error" in text
    remark = "worse than before training" if report is WORSE else "no significant change"
    assert remark in stream.getvalue()
    assert remark in page
    assert remark in card
    assert ('class="outcome worse"' in page) == (report is WORSE)
