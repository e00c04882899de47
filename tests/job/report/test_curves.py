"""What report.html says beside its figures: values of the curves, overfitting, the manifest to copy."""

import html
import json
import re
from array import array
from typing import Any

import pytest
from support.report_samples import causal_curve, causal_report, demo_report, stepwise, training_curve

from lmft_api.manifest.reader import read_yaml
from lmft_api.manifest.validation import document_problems
from lmft_api.spec import LMFineTuneSpec
from lmft_api.spec.resolved import resolve
from lmft_api.wire.report import CurvePoint, EvaluationRow, Report
from lmft_job.report.page import render_page
from lmft_job.training.history import TrainingHistory


def values(report: Report, curve: list[CurvePoint]) -> list[Any]:
    """What the page's script is given of each chart."""
    written = render_page(report, curve).decode()
    return [json.loads(html.unescape(text)) for text in re.findall(r'data-values="(.*?)"', written)]


def test_values_of_the_curves_are_there_for_the_script_with_their_errors() -> None:
    report = causal_report()
    errors = {"baseline_eval_loss_standard_error": 0.02}
    report = report.model_copy(update={"results": report.results.model_copy(update=errors)})

    losses = values(report, causal_curve())[0]

    *training, held_out = losses["series"]
    assert held_out["name"] == "held-out loss"
    assert all(text for one in training for _, text, _ in one["points"])
    assert held_out["points"][0] == [0, "4.132 ± 0.020", 4.131961, 0.02]  # before training
    assert [800, "resume", "resumed, 12 repeated"] in losses["marks"]


def test_the_script_has_more_points_than_are_drawn_of_a_long_curve_and_gaps_as_null() -> None:
    curve = training_curve(30_000, 9.0, 3.0, every=1)
    curve[100] = CurvePoint(step=101, loss=float("nan"))

    raw, smooth = values(demo_report(), curve)[0]["series"][:2]

    assert 500 < len(raw["points"]) <= 2_000
    assert [101, "NaN", None] in raw["points"]
    assert {len(point) for point in smooth["points"]} == {3}


def test_learning_rate_gradient_norm_and_speed_are_folded_away_and_counted_in_readable_units() -> None:
    report, curve = demo_report(), stepwise(training_curve(348, 9.0, 4.5, every=1))
    written = render_page(report, curve).decode()

    titles = re.findall(r"<h3>(.*? while training)</h3>", written)
    rates = {step: text for step, text, _ in values(report, curve)[1]["series"][0]["points"]}
    assert titles == [
        "Loss while training",
        "Learning rate while training",
        "Gradient norm while training",
        "Tokens per second while training",
    ]
    assert written.index("<details>") < written.index("Learning rate while training")
    assert "learning rate × 1e-5" in written
    assert rates[348] == "0"
    assert rates[174] == "1.1e-05"


def test_the_manifest_of_the_page_makes_the_same_run() -> None:
    report = demo_report()
    written = render_page(report, []).decode()

    (shown,) = re.findall(r"to copy</summary>\s*<pre[^>]*><code>(.*?)</code>", written, re.DOTALL)
    document = read_yaml(html.unescape(shown))
    assert document_problems(document) == []
    assert resolve(LMFineTuneSpec.model_validate_json(json.dumps(document["spec"]))).named() == report.spec
    assert document["metadata"] == {"name": report.name}


@pytest.mark.parametrize(
    ("losses", "kept", "said"),
    [
        ((4.0, 3.8, 3.9), "Last", "set output.weights to Best"),
        ((4.0, 3.8, 3.9), "Best", "The weights of the lowest loss are the ones that were published"),
        ((4.0, 3.9, 3.8), "Last", ""),
        ((4.0, 3.895, 3.9), "Last", ""),
    ],
)
def test_a_held_out_loss_that_rose_again_is_told_with_what_to_do(
    losses: tuple[float, ...], kept: str, said: str
) -> None:
    rows = [
        EvaluationRow(step=100 * number, epoch=float(number), eval_loss=loss, eval_loss_standard_error=0.01)
        for number, loss in enumerate(losses, start=1)
    ]
    report = demo_report()
    settings = report.settings | {"output.weights": kept}
    written = render_page(report.model_copy(update={"evaluations": rows, "settings": settings}), []).decode()

    assert ("was lowest at step 200 (3.800) and rose to 3.900 by step 300" in written) == bool(said)
    assert said in written


def test_the_curve_of_a_history_says_what_is_known_of_each_step() -> None:
    history = TrainingHistory(losses=array("d", [2.0, 1.5]))  # the first step was trained by a release without a log
    history.steps.update(2e-5, 0.7)
    history.steps.step_done(2, 0.5, None)

    first, second = history.curve()

    assert (first.step, first.loss, first.learning_rate, first.gradient_norm) == (1, 2.0, None, None)
    assert (second.step, second.loss, second.learning_rate, second.gradient_norm) == (2, 1.5, 2e-5, 0.7)
