"""report.json and report.html."""

import base64
import hashlib
import itertools
import json
import math
import re
from html.parser import HTMLParser

import pytest
from support.report_samples import (
    bare_report,
    causal_curve,
    causal_report,
    classification_report,
    demo_report,
    training_curve,
)

from lmft_api.wire.report import CurvePoint, EvaluationRow, Report, SampleOutcome
from lmft_job.report import formatting
from lmft_job.report.page import render_page
from lmft_job.report.snippet import usage
from lmft_job.report.tables import settings_rows

HOSTILE = "<script>alert(1)</script>\"' onload=x \x1b[31m{{ 7*7 }} &lt; </style></title></svg>"
REPORTS = {
    "causal": (causal_report(), causal_curve()),
    "from config": (demo_report(), training_curve(348, 9.0, 4.5, every=1)),
    "classification": (classification_report(), training_curve(2_134, 0.7, 0.2)),
    "bare": (bare_report(), []),
}
VOID = {"meta", "link", "br", "img", "input", "hr", "wbr"}


class Page(HTMLParser):
    """Collects elements and checks that every element is closed in order."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page.decode())
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(params=REPORTS, ids=lambda name: name.replace(" ", "-"))
def page(request: pytest.FixtureRequest) -> Page:
    report, curve = REPORTS[request.param]
    return Page(render_page(report, curve))


def with_results(report: Report, **changes: object) -> Report:
    return report.model_copy(update={"results": report.results.model_copy(update=changes)})


# report.json


def test_report_json_has_the_documented_keys_and_reads_back_unchanged() -> None:
    report = causal_report()

    written = report.to_json()

    body = json.loads(written)
    documented = {"task", "results", "evaluations", "dataset", "settings", "training", "timings", "provenance"}
    assert documented <= body.keys()
    assert {
        "perplexity", "baselinePerplexity", "evalLoss", "baselineEvalLoss", "trainerEvalLoss", "samples", "modelURI",
    } <= body["results"].keys()  # fmt: skip
    assert body["results"]["samples"][0].keys() == {"prompt", "before", "after"}
    assert body["evaluations"][0].keys() == {"step", "epoch", "trainLoss", "evalLoss", "perplexity"}
    assert {
        "trainRows", "evalRows", "droppedRows", "trainBlocks", "evalBlocks", "trainTokens", "fingerprint",
    } <= body["dataset"].keys()  # fmt: skip
    assert {"steps", "tokens", "tokensPerSecond", "resumedFromStep", "lostSteps", "adjustments"} <= body[
        "training"
    ].keys()
    assert {"versions", "seed", "modelRevision", "specHash", "image"} <= body["provenance"].keys()
    assert Report.from_json(written) == report


def test_a_number_that_is_not_finite_stays_valid_json_and_reads_back() -> None:
    report = with_results(causal_report(), perplexity=math.inf, eval_loss=math.nan)

    written = report.to_json()

    json.loads(written, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    read = Report.from_json(written)
    assert read.results.perplexity == math.inf
    assert math.isnan(read.results.eval_loss or 0.0)


def test_a_report_of_a_later_version_is_still_read() -> None:
    body = json.loads(causal_report().to_json()) | {"later": 1}

    assert Report.from_json(json.dumps(body).encode()) == causal_report()


# Words


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (7912.4, "7,912"), (212.43, "212.4"), (49.6, "49.60"), (8.757, "8.757"), (0.3712, "0.3712"), (0.0, "0"),
        (9.9996, "10.00"), (1.5e12, "1.5e+12"), (math.nan, "NaN"), (math.inf, "∞"), (None, "–"), (-0.228, "-0.2280"),
    ],
)  # fmt: skip
def test_figures_have_four_significant_digits(number: float | None, shown: str) -> None:
    assert formatting.figure(number) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.42, "0.4 s"), (41.2, "41 s"), (840, "14 minutes"), (7500, "2 h 5 min"), (200_000, "2 d 7 h")],
)
def test_durations_say_no_more_than_a_reader_wants(seconds: float, shown: str) -> None:
    assert formatting.duration(seconds) == shown


def test_the_outcome_is_one_sentence() -> None:
    assert (
        formatting.outcome(demo_report())
        == "Perplexity fell from 7,912 to 88.30 on 1,021 held-out blocks in 96 s on a CPU."
    )
    assert formatting.outcome(classification_report()).startswith(
        "Accuracy rose from 50.0 % to 84.3 % on 1,066 held-out rows"
    )
    assert formatting.outcome(bare_report()) == "Trained for 1 step on a CPU."
    assert formatting.outcome(causal_report()) == (
        "Perplexity fell from 62.30 to 49.60 on 1,021 held-out blocks on one NVIDIA H200; attempt 2 resumed from step "
        "800 and took 96 s."
    )


def test_the_outcome_does_not_call_it_progress_when_nothing_moved_or_nothing_is_finite() -> None:
    still = with_results(demo_report(), baseline_perplexity=88.301)
    broken = with_results(demo_report(), perplexity=math.nan)

    assert formatting.outcome(still).startswith("Perplexity stayed at 88.30")
    assert formatting.outcome(broken).startswith("Perplexity went from 7,912 to NaN")


# The page


def test_the_page_is_well_formed_and_asks_nothing_of_the_network(page: Page) -> None:
    outside = ("src", "href", "srcset", "poster", "action", "xlink:href", "style", "onload")
    asked = [attributes for _, attributes in page.elements if any(name in attributes for name in outside)]

    assert asked == []
    assert page.all("script") == [{}]  # our own, admitted by its hash
    assert not page.all("link")
    assert "url(" not in page.text
    assert "@import" not in page.text


def test_the_policy_allows_the_pages_own_style_and_script_and_nothing_else() -> None:
    written = render_page(causal_report(), causal_curve()).decode()

    sources = []
    for element in ("style", "script"):
        (text,) = re.findall(rf"<{element}>(.*?)</{element}>", written, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        sources.append(f"{element}-src 'sha256-{digest}'")
    policies = [one["content"] for one in Page(written.encode()).all("meta") if "http-equiv" in one]
    assert policies == [f"default-src 'none'; {'; '.join(sources)}; base-uri 'none'; form-action 'none'"]


def test_the_page_can_be_read_by_a_screen_reader(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    identifiers = [one["id"] for _, one in page.elements if "id" in one]
    named = " ".join(one.get("aria-labelledby") or "" for _, one in page.elements).split()

    assert page.all("html")[0]["lang"] == "en"
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all("scope" in cell for cell in page.all("th"))
    assert len(identifiers) == len(set(identifiers))
    assert set(named) <= set(identifiers)
    drawings = [one for one in page.all("svg") if "aria-hidden" not in one]
    assert all(one["role"] == "img" and one["aria-labelledby"] for one in drawings)


def test_the_page_has_light_dark_narrow_and_print_styles() -> None:
    written = render_page(causal_report(), causal_curve()).decode()

    for query in ("(prefers-color-scheme: dark)", "(max-width: 40rem)", "@media print"):
        assert query in written


def test_the_page_shows_what_people_came_for() -> None:
    report = causal_report()

    text = Page(render_page(report, causal_curve())).text

    for expected in (
        formatting.outcome(report),
        report.results.samples[0].prompt, "recognise a virus", "−20.4 %", "3,998", "1,186,688",
        "training.perDeviceBatchSize", "2290a62682d06624634c1f46a6ad5be0f47f38aa", "resumed, 12 repeated",
        "from transformers import pipeline", "aws s3 cp --recursive s3://models/team-a/runs/eli5-1b9d6bcd/model model",
    ):  # fmt: skip
        assert expected in text


def test_a_classifiers_page_has_a_chart_of_its_accuracy() -> None:
    report, curve = REPORTS["classification"]

    page = Page(render_page(report, curve))

    assert "Held-out accuracy: from 50.0 % at step 0 to 84.3 % at step 2,134." in page.text
    assert "Perplexity" not in page.text


def test_text_of_others_never_becomes_markup() -> None:
    report = causal_report().model_copy(
        update={
            "name": HOSTILE,
            "device": HOSTILE,
            "timings": {HOSTILE: 1.0},
            "settings": {"model.name": HOSTILE, f"x.{HOSTILE}": [HOSTILE, {HOSTILE: HOSTILE}]},
            "model": causal_report().model.model_copy(update={"name": HOSTILE, "base_model": HOSTILE}),
            "dataset": causal_report().dataset.model_copy(update={"name": HOSTILE, "labels": [HOSTILE]}),
            "training": causal_report().training.model_copy(update={"adjustments": [HOSTILE]}),
        }
    )
    sample = SampleOutcome(prompt=HOSTILE, before=HOSTILE, after=HOSTILE * 100)
    report = with_results(report, samples=[sample], model_uri=f"file:///{HOSTILE}")

    written = render_page(report, causal_curve())

    page = Page(written)
    assert page.all("script") == [{}]  # our own, admitted by its hash
    assert "alert(1)" in page.text
    assert "49" not in re.findall(r"\[31m(\S+)", page.text)
    assert b"\x1b" not in written


def test_a_very_long_answer_is_folded_and_whole() -> None:
    answer = "word " * 20_000
    report = with_results(causal_report(), samples=[SampleOutcome(prompt="p", before="", after=answer)])

    page = Page(render_page(report, []))

    assert "The model answered nothing." in page.text
    assert page.text.count("word") == 20_000
    assert "other 99," in page.text


def test_indentation_of_code_stays_and_the_blank_of_a_continuation_goes() -> None:
    samples = [SampleOutcome(prompt="a", after="    y = 1\n    return y\n"), SampleOutcome(prompt="b", after=" word")]

    written = render_page(with_results(causal_report(), samples=samples), []).decode()

    assert ">    y = 1\n    return y</p>" in written
    assert ">word</p>" in written


def test_text_that_runs_from_right_to_left_sets_its_own_direction() -> None:
    sample = SampleOutcome(prompt="שלום עולם", before="مرحبا", after="مرحبا بالعالم")

    page = Page(render_page(with_results(causal_report(), samples=[sample]), []))

    assert "مرحبا بالعالم" in page.text
    assert sum(one.get("dir") == "auto" for one in page.all("p")) == 2
    assert any(one.get("dir") == "auto" for one in page.all("h3"))


def test_a_run_without_curve_evaluations_or_samples_still_has_a_page() -> None:
    text = Page(render_page(bare_report(), [])).text

    assert "No loss was logged in this run." in text
    assert "There was no evaluation while training." in text


def test_losses_that_are_not_finite_leave_a_gap_and_a_remark() -> None:
    curve = [CurvePoint(step=step, loss=math.nan if step in (3, 4) else 5.0 - step / 10) for step in range(1, 11)]

    page = Page(render_page(bare_report(), curve))

    paths = [one["d"] or "" for one in page.all("path") if (one["d"] or "").count("L") > 1]
    assert len(paths) == 2  # the second run of points, in each of two sizes; the first has one line segment
    assert "2 values of the training loss are not finite" in page.text
    assert "nan" not in " ".join(paths)


def test_nothing_but_nan_is_told_rather_than_drawn() -> None:
    page = Page(render_page(bare_report(), [CurvePoint(step=1, loss=math.nan)]))

    assert "No loss was logged in this run." in page.text


def test_a_huge_curve_makes_a_small_page() -> None:
    curve = training_curve(300_000, 9.0, 3.0, every=1)
    report = causal_report().model_copy(
        update={"evaluations": [EvaluationRow(step=n, epoch=n / 10, eval_loss=3.0) for n in range(1, 5_000)]}
    )

    written = render_page(report, curve)

    assert len(written) < 600_000


# Settings and use


def test_only_settings_that_differ_from_the_tasks_defaults_are_marked() -> None:
    changed = {row.name: (row.value, row.default) for row in settings_rows(causal_report()) if row.changed}

    assert changed == {
        "model.name": ("distilbert/distilgpt2", None),
        "dataset.name": ("dany0407/eli5_category", None),
        "dataset.split": ("train[:5000]", "train"),
        "dataset.textField": ("answers.text", "text"),
        "training.perDeviceBatchSize": ("16", "8"),
        "sample.prompts": ("Somatic hypermutation allows the immune system to", None),
    }


def test_settings_differ_from_the_defaults_of_their_own_task_even_after_a_round_trip() -> None:
    report = Report.from_json(classification_report().to_json())

    changed = {row.name for row in settings_rows(report) if row.changed}

    assert changed == {"model.name", "dataset.name", "dataset.evalSplit", "sample.prompts"}


@pytest.mark.parametrize("report", [causal_report(), demo_report(), classification_report(), bare_report()])
def test_the_code_to_load_the_model_is_three_lines_that_compile(report: Report) -> None:
    shown = usage(with_results(report, samples=[SampleOutcome(prompt='it\'s "quoted"\n\\')]))

    compile(shown.code, "shown", "exec")
    assert len(shown.code.splitlines()) == 3


def test_the_example_generates_no_more_than_the_run_did() -> None:
    assert "max_new_tokens=100" in usage(causal_report()).code


def test_a_model_in_a_folder_is_loaded_from_its_path() -> None:
    assert "model='/srv/my models/reviews/model'" in usage(classification_report()).code


# Charts
