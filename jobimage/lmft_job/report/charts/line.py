"""Line charts as accessible inline SVG: no script, no fonts, no requests; colours come from the page's CSS."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from lmft_job.report.formatting import figure

Point = tuple[float, float]

MAX_POINTS = 500
"""Maximum number of points drawn of one curve."""
LOG_SCALE_FROM = 30.0
"""Ratio of the largest to the smallest value above which the axis is logarithmic."""
_MEDIAN_SAMPLES = 101
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 14.0, 24.0, 40.0


@dataclass(frozen=True)
class Series:
    """One curve.

    Attributes:
        points: (x, y), x ascending; a non-finite y leaves a gap.
        style: CSS class of the line.
        dots: whether each point is marked and carries its value as a tooltip.
        errors: standard error of each point, drawn as a bar of one error up and down; None where it is not known.
    """

    name: str
    points: Sequence[Point]
    style: str
    dots: bool = False
    errors: Sequence[float | None] = ()

    def bars(self) -> list[tuple[float, float, float]]:
        """(x, lower end, upper end) of each error bar."""
        known = zip(self.points, self.errors, strict=False)
        return [
            (x, y - e, y + e)
            for (x, y), e in known
            if e is not None and e > 0 and math.isfinite(e) and math.isfinite(y)
        ]

    def reach(self) -> list[float]:
        """The values that a chart has to hold."""
        ends = [end for _, low, high in self.bars() for end in (low, high)]
        return [y for _, y in self.points if math.isfinite(y)] + ends


@dataclass(frozen=True)
class Mark:
    """A vertical line at ``x``: the end of an epoch, or a resume."""

    x: float
    label: str
    style: str


@dataclass(frozen=True)
class Size:
    """Size of a chart in CSS pixels at its natural scale; text is 12 pixels high."""

    name: str
    width: float
    height: float


WIDE = Size("wide", 880, 340)
NARROW = Size("narrow", 358, 280)


def thin(points: Sequence[Point], limit: int = MAX_POINTS) -> list[Point]:
    """At most ``limit`` points, evenly spread, that keep the first, the last and every stretch's extremes and gaps.

    The points between the ends are cut into equal stretches; each keeps its lowest and its highest value and, if it
    has any, one non-finite value.
    """
    if len(points) <= limit:
        return list(points)
    inner = points[1:-1]
    each = 2 if all(math.isfinite(y) for _, y in points) else 3
    stretches = max(1, (limit - 2) // each)
    kept = [points[0]]
    for number in range(stretches):
        start, end = number * len(inner) // stretches, (number + 1) * len(inner) // stretches
        finite = [index for index in range(start, end) if math.isfinite(inner[index][1])]
        chosen = {next((index for index in range(start, end) if not math.isfinite(inner[index][1])), -1)} - {-1}
        if finite:
            chosen |= {min(finite, key=lambda i: inner[i][1]), max(finite, key=lambda i: inner[i][1])}
        kept += [inner[index] for index in sorted(chosen)]
    return [*kept, points[-1]]


def _thinned(series: Series) -> Series:
    kept = thin(series.points)
    if len(kept) == len(series.points):
        return series
    return Series(series.name, kept, series.style, series.dots)  # bars of so many points would be a blot


def running_median(points: Sequence[Point], window: int) -> list[Point]:
    """Centred median over ``window`` points at no more than MAX_POINTS places; shorter windows at the ends.

    A median, since a single spike would raise a mean over the whole window. Gaps in the curve are gaps in its median.
    Wide windows are sampled evenly, so the cost does not grow with the curve.
    """
    half, smooth = window // 2, []
    places = min(len(points), MAX_POINTS)
    for place in range(places):
        centre = round(place * (len(points) - 1) / max(1, places - 1))
        x, y = points[centre]
        around = points[max(0, centre - half) : centre + half + 1]
        values = [value for _, value in around[:: max(1, window // _MEDIAN_SAMPLES)] if math.isfinite(value)]
        smooth.append((x, statistics.median(values) if values and math.isfinite(y) else math.nan))
    return smooth


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round values (1, 2, 5 times a power of ten) that cover ``low`` to ``high``, roughly ``about`` of them."""
    if high <= low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(rough))
    size = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
    return [round(number * size, 12) for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Values 1, 2, 5 times powers of ten that cover a positive range; powers of ten alone when it is wide."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if last - first <= 3 else (1,)
    stride = max(1, (last - first) // 6)
    values = [factor * 10.0**power for power in range(first, last + 1, stride) for factor in factors]
    below = [value for value in values if value <= low * 1.0001]
    above = [value for value in values if value >= high * 0.9999]
    bottom, top = (below[-1] if below else values[0]), (above[0] if above else 10.0**last)
    return sorted({value for value in values if bottom <= value <= top} | {bottom, top})


class _Axes:
    """Maps values to pixels."""

    def __init__(self, series: Sequence[Series], x_end: float, size: Size, *, linear: bool = False) -> None:
        values = [y for one in series for y in one.reach()]
        low, high = min(values), max(values)
        self.log = not linear and low > 0 and high / low >= LOG_SCALE_FROM
        self.y_ticks = log_ticks(low, high) if self.log else ticks(low, high, 5)
        self.x_end = max(1.0, x_end)
        self.x_ticks = [x for x in ticks(0, self.x_end, 8 if size.width > 500 else 4) if 0 <= x <= self.x_end]
        if all(float(x).is_integer() for x in self.x_ticks) is False:
            self.x_ticks = sorted({float(math.floor(x)) for x in self.x_ticks})
        self.left, self.right = _LEFT, size.width - _RIGHT
        self.top, self.bottom = _TOP, size.height - _BOTTOM

    def x(self, value: float) -> float:
        return round(self.left + (self.right - self.left) * value / self.x_end, 1)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        if self.log:
            share = (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
        else:
            share = (value - low) / (high - low)
        return round(self.bottom - (self.bottom - self.top) * share, 1)


def line_chart(
    identifier: str,
    size: Size,
    title: str,
    description: str,
    series: Sequence[Series],
    marks: Sequence[Mark] = (),
    *,
    x_label: str = "step",
    y_label: str = "loss",
    percent: bool = False,
    linear: bool = False,
) -> str:
    """An ``<svg>`` element as text; every text in it is escaped.

    Args:
        identifier: unique in the page; prefix of the ids of title and description, for screen readers.
        percent: whether values are shares of 0 to 1, shown as percentages.
        linear: no logarithmic axis, however far the values are apart.

    Raises:
        ValueError: no series has a finite value.
    """
    if not any(math.isfinite(y) for one in series for _, y in one.points):
        raise ValueError("a chart needs at least one finite value")
    thinned = [_thinned(one) for one in series]
    x_end = max([x for one in series for x, _ in one.points] + [mark.x for mark in marks])
    axes = _Axes(thinned, x_end, size, linear=linear)
    svg = ElementTree.Element(
        "svg",
        {
            "class": f"chart {size.name}",
            "viewBox": f"0 0 {size.width:g} {size.height:g}",
            "role": "img",
            "aria-labelledby": f"{identifier}-{size.name}-title {identifier}-{size.name}-description",
            # For the page's script, which finds the step below the pointer.
            "data-plot": f"{axes.left:g} {axes.right:g} {axes.top:g} {axes.bottom:g} {axes.x_end:g}",
        },
    )
    ElementTree.SubElement(svg, "title", {"id": f"{identifier}-{size.name}-title"}).text = title
    ElementTree.SubElement(svg, "desc", {"id": f"{identifier}-{size.name}-description"}).text = description
    _draw_grid(svg, axes, x_label, y_label, percent)
    _draw_marks(svg, axes, marks)
    for one in thinned:
        _draw_series(svg, axes, one, percent)
    return ElementTree.tostring(svg, encoding="unicode")


def _draw_grid(svg: ElementTree.Element, axes: _Axes, x_label: str, y_label: str, percent: bool) -> None:
    decimals = max((_decimals(value * 100 if percent else value) for value in axes.y_ticks), default=0)
    for value in axes.y_ticks:
        y = axes.y(value)
        _line(svg, axes.left, y, axes.right, y, "grid")
        label = (
            f"{value * 100:.{decimals}f} %" if percent else f"{value:,.10g}" if axes.log else f"{value:,.{decimals}f}"
        )
        _text(svg, axes.left - 7, y + 4, label, "tick", "end")
    for value in axes.x_ticks:
        _text(svg, axes.x(value), axes.bottom + 17, f"{value:,.0f}", "tick", "middle")
    _line(svg, axes.left, axes.bottom, axes.right, axes.bottom, "axis")
    _text(svg, (axes.left + axes.right) / 2, axes.bottom + 34, x_label, "tick", "middle")
    _text(svg, 2, 12, y_label + (" (log scale)" if axes.log else ""), "tick", "start")


def _decimals(value: float) -> int:
    """Digits after the decimal point that a tick needs."""
    text = f"{value:.10f}".rstrip("0")
    return len(text) - text.index(".") - 1


def _draw_marks(svg: ElementTree.Element, axes: _Axes, marks: Sequence[Mark]) -> None:
    free_from: dict[str, float] = {}
    for mark in marks:
        x = axes.x(mark.x)
        _line(svg, x, axes.top, x, axes.bottom, f"mark {mark.style}")
        width = 6.4 * len(mark.label)
        left = x - width - 5 if x - width - 5 > axes.left else x + 5
        if left < free_from.get(mark.style, 0.0) or left + width > axes.right + _RIGHT:
            continue
        # Epochs are labelled at the top, other marks at the bottom, so that labels never overlap.
        y = axes.top + 11 if mark.style == "epoch" else axes.bottom - 7
        _text(svg, left, y, mark.label, f"label {mark.style}", "start")
        free_from[mark.style] = left + width + 8


def _draw_series(svg: ElementTree.Element, axes: _Axes, one: Series, percent: bool) -> None:
    for x, low, high in one.bars():
        _line(svg, axes.x(x), axes.y(low), axes.x(x), axes.y(high), f"bar {one.style}")
    for stretch in _stretches(one.points):
        if len(stretch) > 1:
            path = "M" + "L".join(f"{axes.x(x):g} {axes.y(y):g}" for x, y in stretch)
            ElementTree.SubElement(svg, "path", {"class": f"line {one.style}", "d": path})
        dotted = stretch if one.dots else stretch if len(stretch) == 1 else []
        for x, y in dotted:
            attributes = {"class": f"dot {one.style}", "cx": f"{axes.x(x):g}", "cy": f"{axes.y(y):g}", "r": "4"}
            dot = ElementTree.SubElement(svg, "circle", attributes)
            shown = f"{y * 100:.1f} %" if percent else figure(y)
            ElementTree.SubElement(dot, "title").text = f"{one.name} {shown} at step {x:,.0f}"


def _stretches(points: Sequence[Point]) -> list[list[Point]]:
    """Sequences of finite points between the gaps."""
    runs: list[list[Point]] = [[]]
    for point in points:
        if math.isfinite(point[1]):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _line(svg: ElementTree.Element, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
    ends = {"x1": f"{x1:g}", "y1": f"{y1:g}", "x2": f"{x2:g}", "y2": f"{y2:g}"}
    ElementTree.SubElement(svg, "line", {"class": style, **ends})


def _text(svg: ElementTree.Element, x: float, y: float, text: str, style: str, anchor: str) -> None:
    place = {"x": f"{x:g}", "y": f"{y:g}", "text-anchor": anchor}
    ElementTree.SubElement(svg, "text", {"class": style, **place}).text = text
