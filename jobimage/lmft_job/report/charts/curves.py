"""The curves of a run's report: losses, figures of the evaluations, learning rate, gradient norm, throughput."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from markupsafe import Markup

from lmft_api.figures import EVAL_LOSS, FIGURES, Figure, Scale
from lmft_api.text.shown import printable
from lmft_api.wire.report import CurvePoint, Report
from lmft_job.report import formatting
from lmft_job.report.charts import line

SMOOTH_FROM = 60
"""Number of logged losses from which a running median is drawn over them."""
ZOOM_POINTS = 2_000
"""Most points of a curve that the page's script has, to draw some of the steps larger."""


@dataclass(frozen=True)
class Chart:
    """A chart in two sizes with its legend: (style, name) of each series.

    Attributes:
        values: the curves as JSON, for the page's script: how the axes are, marks as [step, style, label], and series
            with points as [step, text, height on the axis, standard error if known]; null leaves a gap.
        aside: whether the page folds it away, since few people look for it.
    """

    title: str
    drawings: Markup
    legend: list[tuple[str, str]]
    values: str
    remark: str = ""
    aside: bool = False


def curves(report: Report, curve: Sequence[CurvePoint]) -> list[Chart]:
    """The charts that there is something to draw for; those that are folded away come last."""
    marks = _marks(report)
    evaluated = _evaluation_points(report, EVAL_LOSS)
    own = [kind for kind in FIGURES if kind != EVAL_LOSS and kind.function_of is None]
    drawn = [_losses(curve, marks, *evaluated), *(_of_figure(kind, report, marks) for kind in own)]
    return [chart for chart in drawn if chart is not None] + _of_each_step(curve, marks)


def curves_of_training(curve: Sequence[CurvePoint]) -> list[Chart]:
    """The same of a run that still trains."""
    losses = _losses(curve, [])
    return ([] if losses is None else [losses]) + _of_each_step(curve, [])


def _of_each_step(curve: Sequence[CurvePoint], marks: list[line.Mark]) -> list[Chart]:
    drawn = [
        _of_steps("learning-rate", "Learning rate", [(p.step, p.learning_rate) for p in curve], marks),
        _of_steps("gradient-norm", "Gradient norm", [(p.step, p.gradient_norm) for p in curve], marks, linear=False),
        _of_steps("speed", "Tokens per second", [(p.step, p.tokens_per_second) for p in curve], marks),
    ]
    return [chart for chart in drawn if chart is not None]


def _losses(
    curve: Sequence[CurvePoint],
    marks: list[line.Mark],
    evaluated: Sequence[line.Point] = (),
    errors: Sequence[float | None] = (),
) -> Chart | None:
    """Training loss and held-out loss."""
    training = [(float(point.step), point.loss) for point in curve]
    series = [line.Series("training loss", training, "training")] if training else []
    if len(training) >= SMOOTH_FROM:
        window = max(5, len(training) // 30)
        series = [
            line.Series("training loss", training, "training raw"),
            line.Series(f"training loss, median of {window}", line.running_median(training, window), "training"),
        ]
    if evaluated:
        series.append(line.Series("held-out loss", evaluated, "evaluation", dots=True, errors=errors))
    missing = sum(not math.isfinite(loss) for _, loss in training)
    remark = (
        f"{formatting.quantity(missing, 'values')} of the training loss are not finite; the curve has gaps there."
        if missing
        else ""
    )
    described = [_describe("Training loss", training), _describe("Held-out loss", evaluated)]
    return _chart("loss", "Loss while training", described, series, marks, remark)


def _of_figure(kind: Figure, report: Report, marks: list[line.Mark]) -> Chart | None:
    """A figure of the evaluations."""
    points, errors = _evaluation_points(report, kind)
    show = partial(formatting.shown, kind)
    series = [line.Series(f"held-out {kind.word}", points, "evaluation", dots=True, errors=errors)]
    described = [_describe(f"Held-out {kind.word}", points, show)]
    share = kind.scale == Scale.SHARE
    title = f"{kind.title} while training"
    return _chart(kind.name, title, described, series, marks, y_label=kind.word, percent=share, show=show)


def _of_steps(
    identifier: str,
    title: str,
    values: Sequence[tuple[int, float | None]],
    marks: list[line.Mark],
    *,
    linear: bool = True,
) -> Chart | None:
    """Something of each step beside its loss; its axis counts thousands, or a power of ten, of what is far from 1."""
    points = [(float(step), math.nan if value is None else value) for step, value in values]
    largest = max((abs(y) for _, y in points if math.isfinite(y)), default=0.0)
    power = math.floor(math.log10(largest)) if 0 < largest < 0.01 else 3 if largest >= 10_000 else 0
    scaled = [(x, y / 10.0**power) for x, y in points]
    word = title.lower()
    unit = {0: "", 3: ", thousands"}.get(power, f" × 1e{power}")

    def show(value: float) -> str:
        return formatting.figure(value * 10.0**power, 3)

    series = [line.Series(word, scaled, "training")]
    described = [_describe(title, scaled, show)]
    chart = _chart(
        identifier, f"{title} while training", described, series, marks, y_label=word + unit, show=show, linear=linear
    )
    return None if chart is None else replace(chart, aside=True)


def _chart(
    identifier: str,
    title: str,
    described: list[str],
    series: list[line.Series],
    marks: list[line.Mark],
    remark: str = "",
    *,
    y_label: str = "loss",
    percent: bool = False,
    show: Callable[[float], str] = formatting.figure,
    linear: bool = False,
) -> Chart | None:
    """None if no series has a finite value."""
    if not any(math.isfinite(y) for one in series for _, y in one.points):
        return None
    description = " ".join(part for part in [*described, _describe_marks(marks)] if part)
    drawings = [
        line.line_chart(
            identifier, size, title, description, series, marks, y_label=y_label, percent=percent, linear=linear
        )
        for size in (line.WIDE, line.NARROW)
    ]
    # The XML writer has escaped the drawings; only control characters remain to be removed.
    drawing = Markup(printable("\n".join(drawings)))  # noqa: S704
    values: dict[str, Any] = {"label": y_label, "percent": percent, "linear": linear}
    values["marks"] = [[mark.x, mark.style, mark.label] for mark in marks]
    values["series"] = [_values(one, show) for one in series]
    legend = [(one.style, one.name) for one in series]
    return Chart(title, drawing, legend, json.dumps(values, separators=(",", ":"), ensure_ascii=False), remark)


def _values(one: line.Series, show: Callable[[float], str]) -> dict[str, Any]:
    """What the script says beside the pointer, and draws when it zooms: more points than the whole is drawn of."""
    errors = dict(zip((x for x, _ in one.points), one.errors, strict=False))
    points: list[list[Any]] = []
    for x, y in line.thin(one.points, ZOOM_POINTS):
        error = errors.get(x)
        points.append([int(x), show(y), float(f"{y:.7g}") if math.isfinite(y) else None])
        if error is not None and math.isfinite(error):
            points[-1][1] += f" ± {formatting.figure(error, 2)}"
            points[-1].append(error)
    return {"name": one.name, "style": one.style, "dots": one.dots, "points": points}


def _evaluation_points(report: Report, kind: Figure) -> tuple[list[line.Point], list[float | None]]:
    """A figure before training and at each evaluation, and the standard error of each."""
    results, error = report.results, kind.standard_error
    rows = [(0.0, getattr(results, kind.baseline), getattr(results, f"baseline_{error}"))]
    rows += [(float(row.step), getattr(row, kind.name), getattr(row, error)) for row in report.evaluations]
    known = [row for row in rows if row[1] is not None]
    return [(x, y) for x, y, _ in known], [within for _, _, within in known]


def _marks(report: Report) -> list[line.Mark]:
    marks = []
    epochs, steps = report.training.epochs or 0.0, report.training.steps
    if 0 < epochs < math.inf and steps > 0:
        whole = math.floor(epochs + 1e-6)
        stride = max(1, math.ceil(whole / 20))
        marks = [
            line.Mark(number * steps / epochs, f"epoch {number}", "epoch")
            for number in range(stride, whole + 1, stride)
        ]
    resumes = [(resume.step, resume.lost_steps) for resume in report.training.resumes]
    if not resumes and report.training.resumed_from_step:
        resumes = [(report.training.resumed_from_step, report.training.lost_steps)]
    for step, lost in resumes:
        marks.append(line.Mark(float(step), "resumed" + (f", {lost} repeated" if lost else ""), "resume"))
    return marks


def _describe(what: str, points: Sequence[line.Point], show: Callable[[float], str] = formatting.figure) -> str:
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    if not finite:
        return ""
    (first_x, first_y), (last_x, last_y) = finite[0], finite[-1]
    if len(finite) == 1:
        return f"{what}: {show(first_y)} at step {first_x:,.0f}."
    low_x, low_y = min(finite, key=lambda point: point[1])
    lowest = f", lowest {show(low_y)} at step {low_x:,.0f}" if low_x not in (first_x, last_x) else ""
    return f"{what}: from {show(first_y)} at step {first_x:,.0f} to {show(last_y)} at step {last_x:,.0f}{lowest}."


def _describe_marks(marks: Sequence[line.Mark]) -> str:
    resumes = [f"{mark.label} at step {mark.x:,.0f}" for mark in marks if mark.style == "resume"]
    return f"The run {'; '.join(resumes)}." if resumes else ""
