"""``report.html``: one self-contained page, without scripts and without requests."""

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lmft_api.figures import EVAL_LOSS, FIGURES, Figure, Scale, of_task
from lmft_api.text.shown import printable
from lmft_api.wire.report import CurvePoint, Report
from lmft_job import tasks
from lmft_job.report import charts, formatting, tables
from lmft_job.report.snippet import usage

SAMPLE_SHOWN = 900
"""Characters of an answer after which the rest is collapsed."""
NO_TIME_SECONDS = 0.05
"""Shorter times are not listed: the last evaluation is part of training, unless training ended between two."""
SMOOTH_FROM = 60
"""Number of logged losses from which a running median is drawn over them."""


@dataclass(frozen=True)
class Answer:
    """A sample's text, split where the page collapses it."""

    shown: str
    rest: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart in two sizes with its legend: (style, name) of each series."""

    title: str
    drawings: Markup
    legend: list[tuple[str, str]]
    remark: str = ""


def render_page(report: Report, curve: Sequence[CurvePoint]) -> bytes:
    """The page as UTF-8.

    Args:
        report: the figures.
        curve: logged training losses in the order of their steps, over all attempts; may be empty or huge.
    """
    environment = Environment(
        loader=PackageLoader("lmft_job.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Text written by a person or a model may contain characters that HTML forbids.
        finalize=lambda value: value if isinstance(value, Markup) else printable(str(value)),
    )
    style = resources.files("lmft_job.report").joinpath("templates", "report.css").read_text(encoding="utf-8")
    style_hash = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    settings = tables.settings_rows(report)
    page = environment.get_template(
        "report.html.j2"
    ).render(
        report=report,
        words=formatting,
        style=Markup(style),  # noqa: S704 - our own file
        policy=f"default-src 'none'; style-src 'sha256-{style_hash}'; base-uri 'none'; form-action 'none'",
        task=tasks.of(report.task),
        outcome=formatting.outcome(report),
        verdict=formatting.verdict(report.results),
        tiles=tables.tiles_of(report),
        charts=_charts(report, curve),
        evaluations=tables.evaluation_rows(report),
        columns=[EVAL_LOSS, *(kind for kind in of_task(report.task) if kind != EVAL_LOSS)],
        samples=[(sample.prompt, _answer(sample.before), _answer(sample.after)) for sample in report.results.samples],
        figures=tables.figure_rows(report),
        data=tables.data_rows(report),
        changed=[row for row in settings if row.changed],
        settings=settings,
        training=tables.training_rows(report),
        timings=[
            (name[:1].upper() + name[1:].replace("_", " "), formatting.duration(seconds))
            for name, seconds in report.timings.items()
            if seconds >= NO_TIME_SECONDS or not math.isfinite(seconds)
        ],
        provenance=tables.provenance_rows(report),
        remarks=tables.remarks(report),
        usage=usage(report),
    )
    return page.encode("utf-8", errors="replace")


def _charts(report: Report, curve: Sequence[CurvePoint]) -> list[Chart]:
    training = [(float(point.step), point.loss) for point in curve]
    evaluated = _evaluation_points(report, EVAL_LOSS)
    marks = _marks(report)
    drawn = []
    series = [charts.Series("training loss", training, "training")] if training else []
    if len(training) >= SMOOTH_FROM:
        window = max(5, len(training) // 30)
        series = [
            charts.Series("training loss", training, "training raw"),
            charts.Series(f"training loss, median of {window}", charts.running_median(training, window), "training"),
        ]
    if evaluated:
        series.append(charts.Series("held-out loss", evaluated, "evaluation", dots=True))
    missing = sum(not math.isfinite(loss) for _, loss in training)
    remark = (
        f"{formatting.quantity(missing, 'values')} of the training loss are not finite; the curve has gaps there."
        if missing
        else ""
    )
    if _drawable(series):
        described = [
            _describe("Training loss", training),
            _describe("Held-out loss", evaluated),
            _describe_marks(marks),
        ]
        drawn.append(_chart("loss", "Loss while training", described, series, marks, remark))
    own = [kind for kind in FIGURES if kind != EVAL_LOSS and kind.function_of is None]
    return drawn + [chart for kind in own if (chart := _chart_of(kind, report, marks)) is not None]


def _chart_of(kind: Figure, report: Report, marks: list[charts.Mark]) -> Chart | None:
    """The chart of a figure's evaluations; None if there are none to draw."""
    points = _evaluation_points(report, kind)
    series = [charts.Series(f"held-out {kind.word}", points, "evaluation", dots=True)]
    if not _drawable(series):
        return None
    described = [_describe(f"Held-out {kind.word}", points, partial(formatting.shown, kind))]
    share = kind.scale == Scale.SHARE
    title = f"{kind.title} while training"
    return _chart(kind.name, title, described, series, marks, "", y_label=kind.word, percent=share)


def _chart(
    identifier: str,
    title: str,
    described: list[str],
    series: list[charts.Series],
    marks: list[charts.Mark],
    remark: str,
    *,
    y_label: str = "loss",
    percent: bool = False,
) -> Chart:
    description = " ".join(part for part in described if part)
    drawings = [
        charts.line_chart(
            identifier,
            size,
            title,
            description,
            series,
            marks,
            y_label=y_label,
            percent=percent,
        )
        for size in (charts.WIDE, charts.NARROW)
    ]
    # The XML writer has escaped the drawings; only control characters remain to be removed.
    drawing = Markup(printable("\n".join(drawings)))  # noqa: S704
    return Chart(title, drawing, [(one.style, one.name) for one in series], remark)


def _drawable(series: Sequence[charts.Series]) -> bool:
    return any(math.isfinite(y) for one in series for _, y in one.points)


def _evaluation_points(report: Report, kind: Figure) -> list[charts.Point]:
    baseline = getattr(report.results, kind.baseline)
    points = [(0.0, baseline)] if baseline is not None else []
    points += [(float(row.step), value) for row in report.evaluations if (value := getattr(row, kind.name)) is not None]
    return points


def _marks(report: Report) -> list[charts.Mark]:
    marks = []
    epochs, steps = report.training.epochs or 0.0, report.training.steps
    if epochs > 0 and steps > 0:
        whole = math.floor(epochs + 1e-6)
        stride = max(1, math.ceil(whole / 20))
        marks = [
            charts.Mark(number * steps / epochs, f"epoch {number}", "epoch")
            for number in range(stride, whole + 1, stride)
        ]
    resumes = [(resume.step, resume.lost_steps) for resume in report.training.resumes]
    if not resumes and report.training.resumed_from_step:
        resumes = [(report.training.resumed_from_step, report.training.lost_steps)]
    for step, lost in resumes:
        marks.append(charts.Mark(float(step), "resumed" + (f", {lost} repeated" if lost else ""), "resume"))
    return marks


def _describe(what: str, points: Sequence[charts.Point], show: Any = formatting.figure) -> str:
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    if not finite:
        return ""
    (first_x, first_y), (last_x, last_y) = finite[0], finite[-1]
    if len(finite) == 1:
        return f"{what}: {show(first_y)} at step {first_x:,.0f}."
    low_x, low_y = min(finite, key=lambda point: point[1])
    lowest = f", lowest {show(low_y)} at step {low_x:,.0f}" if low_x not in (first_x, last_x) else ""
    return f"{what}: from {show(first_y)} at step {first_x:,.0f} to {show(last_y)} at step {last_x:,.0f}{lowest}."


def _describe_marks(marks: Sequence[charts.Mark]) -> str:
    resumes = [f"{mark.label} at step {mark.x:,.0f}" for mark in marks if mark.style == "resume"]
    return f"The run {'; '.join(resumes)}." if resumes else ""


def _answer(text: str | None) -> Answer | None:
    if text is None:
        return None
    # A continuation begins with the space before its first word; more spaces are indentation and stay.
    text = text.strip("\r\n").rstrip()
    text = text[1:] if text.startswith(" ") and not text[1:2].isspace() else text
    if len(text) <= SAMPLE_SHOWN * 1.2:
        return Answer(text)
    # Cut between words if a word boundary is near.
    cut = text.rfind(" ", SAMPLE_SHOWN - 80, SAMPLE_SHOWN)
    cut = cut if cut > 0 else SAMPLE_SHOWN
    return Answer(text[:cut], text[cut:])
