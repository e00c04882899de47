"""The report's charts: thinning, scales, and drawings that stay in their frame."""

import itertools
import math
from xml.etree import ElementTree

import pytest

from lmft_job.report.charts import line

HOSTILE = "<script>alert(1)</script>\"' onload=x \x1b[31m{{ 7*7 }} &lt; </style></title></svg>"


def test_thinning_keeps_the_ends_the_extremes_and_the_order() -> None:
    points = [(float(x), math.sin(x / 50)) for x in range(10_000)]
    points[4_321] = (4_321.0, 99.0)
    points[777] = (777.0, -99.0)

    kept = line.thin(points)

    assert len(kept) <= line.MAX_POINTS
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert {points[4_321], points[777]} <= set(kept)
    assert kept == sorted(kept)
    gaps = [after[0] - before[0] for before, after in itertools.pairwise(kept)]
    assert max(gaps) < 3 * len(points) / len(kept) * 2


def test_a_running_median_shrugs_off_a_spike_and_keeps_a_gap() -> None:
    points = [(float(x), 1e6 if x == 500 else math.nan if x == 700 else 2.0) for x in range(1_000)]

    smooth = dict(line.running_median(points, 33))

    assert len(smooth) <= line.MAX_POINTS
    assert {y for y in smooth.values() if math.isfinite(y)} == {2.0}
    assert line.running_median(points[:3], 5) == points[:3]
    assert math.isnan(line.running_median(points[690:710], 5)[10][1])


def test_thinning_keeps_gaps() -> None:
    points = [(float(x), math.nan if 5_000 <= x < 5_100 else 1.0) for x in range(10_000)]

    kept = line.thin(points)

    assert len(kept) <= line.MAX_POINTS
    assert any(math.isnan(y) for _, y in kept)


@pytest.mark.parametrize("number", [0, 1, 2, 499, 500, 501, 502])
def test_thinning_leaves_short_curves_alone(number: int) -> None:
    points = [(float(x), float(x % 7)) for x in range(number)]

    kept = line.thin(points)

    assert len(kept) <= line.MAX_POINTS
    assert number > line.MAX_POINTS or kept == points


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (3.8, 4.2, [3.8, 3.9, 4.0, 4.1, 4.2]),
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (5, 5, [4.4, 4.6, 4.8, 5, 5.2, 5.4, 5.6]),
    ],
)
def test_ticks_are_round_and_cover_the_range(low: float, high: float, expected: list[float]) -> None:
    assert line.ticks(low, high, 5) == pytest.approx(expected)


def test_a_range_of_decades_gets_a_log_scale_that_says_so() -> None:
    wide = [line.Series("loss", [(0, 0.01), (1, 5_000.0)], "training")]

    drawing = line.line_chart("c", line.WIDE, "t", "d", wide)

    assert "log scale" in drawing


@pytest.mark.parametrize("size", [line.WIDE, line.NARROW])
@pytest.mark.parametrize(
    "points",
    [[(1.0, 4.2)], [(0.0, 0.0), (1.0, 0.0)], [(1.0, -3.0), (9e6, 1e-9)], [(0.0, 1e-300), (5.0, 1e300)], [(0.0, 3.0)]],
    ids=["one point", "flat zero", "negative", "hundreds of decades", "step zero"],
)
def test_every_drawing_stays_inside_its_frame(points: list[tuple[float, float]], size: line.Size) -> None:
    marks = [line.Mark(1.0, "epoch 1", "epoch"), line.Mark(0.0, "resumed", "resume")]

    drawing = line.line_chart("c", size, "t", "d", [line.Series("loss", points, "training", dots=True)], marks)

    root = ElementTree.fromstring(drawing)  # noqa: S314 - our own drawing
    for element in root.iter():
        for name in ("x", "x1", "x2", "cx"):
            assert 0 <= float(element.get(name, 0)) <= size.width
        for name in ("y", "y1", "y2", "cy"):
            assert 0 <= float(element.get(name, 0)) <= size.height
    assert len(root.findall("circle")) == len(points)


def test_texts_in_a_drawing_are_escaped() -> None:
    series = [line.Series(HOSTILE.replace("\x1b", ""), [(0, 1.0)], "training", dots=True)]

    drawing = line.line_chart("c", line.WIDE, "<b>", "</svg>", series)

    root = ElementTree.fromstring(drawing)  # noqa: S314 - our own drawing
    assert root.findtext("title") == "<b>"
    assert root.find("script") is None


def test_a_chart_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="finite"):
        line.line_chart("c", line.WIDE, "t", "d", [line.Series("loss", [(0, math.nan)], "training")])
