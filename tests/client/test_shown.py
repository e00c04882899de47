"""What a run looks like: in a notebook everything that a cluster says is text, and never markup."""

import math
from html.parser import HTMLParser
from typing import Any

import pytest
from support.report_samples import demo_report

from lmft import InvalidManifest, Run, RunReport, Runs
from lmft.display.curve import curve

HOSTILE = "<script>alert(1)</script><img src=x onerror=y> \"' onload=z &lt;b&gt; \x1b[31m\u202e"
KNOWN = {"div", "b", "progress", "svg", "title", "polyline", "table", "thead", "tbody", "tr", "th", "td"}
KNOWN |= {"details", "summary", "span", "code"}
KEYS = {"style", "max", "value", "role", "aria-label", "viewbox", "width", "height", "points", "fill", "stroke",
        "stroke-width"}  # fmt: skip


class Reader(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.keys: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.keys |= {key for key, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def run(status: Any, name: str = "eli5", **spec: Any) -> Run:
    metadata = {"name": name, "namespace": "team-a", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return Run.from_manifest({"metadata": metadata, "spec": spec, "status": status})


def condition(status: str, reason: str, message: str = "") -> dict[str, Any]:
    return {"type": "Succeeded", "status": status, "reason": reason, "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z"}  # fmt: skip


TRAINING = {
    "model": "gpt2",
    "conditions": [condition("Unknown", "Training", "step 300 of 1000")],
    "progress": {"percent": 30, "display": "30%", "eta": "2m", "step": 300, "totalSteps": 1000, "loss": "3.5"},
    "evaluations": [
        {"step": step, "epoch": "1", "trainLoss": loss, "evalLoss": "4.0"} for step, loss in ((100, "5"), (200, "4"))
    ],
    "results": {"baselinePerplexity": "62.30", "perplexity": "54.60", "perplexityStandardError": "0.5"},
}
DONE = TRAINING | {
    "conditions": [condition("True", "Completed")],
    "results": {"perplexity": "49.61", "reportURI": "s3://m/report.html", "modelURI": "s3://m/model",
                "samples": [{"prompt": "The sky", "before": "qe", "after": "is blue\nand wide"}]},
}  # fmt: skip
EVERYWHERE = {
    "model": HOSTILE,
    "conditions": [condition("False", HOSTILE, HOSTILE)],
    "progress": {"percent": 10**18, "display": HOSTILE, "eta": HOSTILE, "step": 5, "loss": "9" * 30},
    "evaluations": [{"step": 5, "epoch": HOSTILE[:30], "trainLoss": "1e308", "evalLoss": "x"},
                    {"step": 10**18, "epoch": "1", "trainLoss": "-1e308", "evalLoss": "x"}],
    "results": {"display": HOSTILE, "perplexity": HOSTILE[:32], "modelURI": "javascript:alert(1)", "reportURI": HOSTILE,
                "samples": [{"prompt": HOSTILE, "before": HOSTILE, "after": HOSTILE}]},
}  # fmt: skip


def test_a_run_that_trains_has_a_bar_its_curve_and_its_figures_so_far() -> None:
    page = Reader(run(TRAINING)._repr_html_())

    assert {"progress", "svg", "polyline", "table"} <= page.elements
    for part in ("team-a/eli5", "gpt2", "Training", "step 300/1000", "2m left", "62.30", "54.60 ± 0.5",
                 "training loss from 5 at step 100 to 3.5 at step 300"):  # fmt: skip
        assert part in page.text
    assert str(run(TRAINING)) == (
        "eli5 · Training · step 300/1000 · loss 3.5 · 2m left · perplexity 54.60 · step 300 of 1000"
    )


def test_a_run_that_is_done_has_its_samples_and_where_things_lie() -> None:
    text = Reader(run(DONE)._repr_html_()).text
    for part in ("Completed", "“The sky”", "is blue\nand wide", "s3://m/model", "s3://m/report.html"):
        assert part in text
    assert "left" not in text


@pytest.mark.parametrize(
    "status",
    [EVERYWHERE, {}, {"conditions": 5}, {"progress": {"percent": -5}}, {"results": {"samples": [{}]}}, [], "x"],
    ids=["everywhere", "none", "conditions", "negative", "sample", "list", "text"],
)
def test_nothing_that_a_status_says_becomes_markup(status: Any) -> None:
    runs = Runs([run(status, name=HOSTILE)])

    for page in (runs[0]._repr_html_(), runs._repr_html_()):
        read = Reader(page)
        assert read.elements <= KNOWN
        assert read.keys <= KEYS
        assert "\x1b" not in page
        assert "\u202e" not in page
    assert "\x1b" not in str(runs[0]) + repr(runs[0]) + repr(runs)


def test_a_report_shows_figures_with_their_errors_and_no_markup_of_its_own() -> None:
    report = demo_report()
    model = report.model.model_copy(update={"name": HOSTILE})
    update = {"name": HOSTILE, "namespace": HOSTILE, "model": model, "warnings": [HOSTILE]}
    hostile = RunReport.model_validate_json(report.model_copy(update=update).to_json())

    plain = Reader(RunReport.model_validate_json(report.to_json())._repr_html_())
    read = Reader(hostile._repr_html_())

    assert f"{report.results.perplexity:.2f}" in plain.text
    assert "held-out loss from" in plain.text
    assert read.elements <= KNOWN
    assert read.keys <= KEYS


@pytest.mark.parametrize(
    ("points", "wanted"),
    [
        ([], 0),
        ([(1, 2.0)], 0),
        ([(1, math.nan), (2, 3.0)], 0),
        ([(1, 2.0), (2, 2.0)], 2),
        ([(0, 1.7e308), (2**63, -1.7e308)], 2),
        ([(step, 1 / (step + 1)) for step in range(5000)], 1000),
    ],
)
def test_a_curve_stays_within_its_frame_and_its_size(points: list[tuple[int, float]], wanted: int) -> None:
    drawn = curve(points, "loss")

    places = [place.split(",") for place in drawn.partition('points="')[2].partition('"')[0].split()]
    assert len(places) == wanted
    assert all(0 <= float(x) <= 480 and 0 <= float(y) <= 120 for x, y in places)


def test_a_spec_is_typed_and_one_of_a_later_release_says_so() -> None:
    spec = {"model": {"name": "gpt2"}, "dataset": {"builtin": "PythonDocs"}, "suspend": True}
    known, later = run({}, **spec), run({}, **spec, later=1)

    assert known.spec.model.name == "gpt2"
    assert known.suspended
    assert later.suspended
    with pytest.raises(InvalidManifest, match="the spec of team-a/eli5"):
        _ = later.spec
    assert later.manifest["spec"]["later"] == 1


def test_the_remedy_is_that_of_the_reason() -> None:
    assert "learningRate" in run({"conditions": [condition("False", "Diverged")]}).remedy
    assert run({"conditions": [condition("False", "OfALaterRelease")]}).remedy == ""
