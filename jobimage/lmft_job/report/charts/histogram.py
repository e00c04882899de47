"""How long the training texts are, as bars: accessible inline SVG like the curves."""

from collections.abc import Sequence
from xml.etree import ElementTree

from markupsafe import Markup

from lmft_api.text.shown import printable
from lmft_api.wire.report import DatasetFigures
from lmft_job.report.charts.line import NARROW, WIDE, Size
from lmft_job.report.formatting import count, quantity

_HEIGHT = 200.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 10.0, 10.0, 44.0, 36.0
_MOST_CLASSES = 24
_CHARACTER = 7.0
"""Width of a digit."""

Classes = Sequence[tuple[int | None, int]]


def of_lengths(data: DatasetFigures, description: str) -> Markup | None:
    """The bars in two sizes, with a line at the limit; None if the lengths are not known.

    Args:
        data: the data in numbers.
        description: the same in a sentence, for screen readers.
    """
    chats = data.conversations
    classes = (data.lengths.histogram if data.lengths else []) or (chats.histogram if chats else [])
    classes = classes[:_MOST_CLASSES]
    if not any(texts > 0 for _, texts in classes):
        return None
    limit = data.lengths.limit if data.lengths and data.lengths.limit else chats.max_length if chats else None
    word = "maxLength" if chats else "block" if data.train_blocks is not None else "limit"
    nouns = "conversations" if chats else "texts"
    drawings = [
        _bars(size, classes, limit, f"{word}, {count(limit or 0)}", nouns, description) for size in (WIDE, NARROW)
    ]
    # The XML writer has escaped the drawings; only control characters remain to be removed.
    return Markup(printable("\n".join(drawings)))  # noqa: S704


def _bars(size: Size, classes: Classes, limit: int | None, label: str, nouns: str, description: str) -> str:
    names = {"title": f"lengths-{size.name}-title", "desc": f"lengths-{size.name}-description"}
    svg = ElementTree.Element(
        "svg",
        {
            "class": f"chart {size.name}",
            "viewBox": f"0 0 {size.width:g} {_HEIGHT:g}",
            "role": "img",
            "aria-labelledby": " ".join(names.values()),
        },
    )
    ElementTree.SubElement(svg, "title", {"id": names["title"]}).text = f"Training {nouns} by length"
    ElementTree.SubElement(svg, "desc", {"id": names["desc"]}).text = description
    most = max(texts for _, texts in classes)
    step = (size.width - _LEFT - _RIGHT) / len(classes)
    floor, free_from, shorter = _HEIGHT - _BOTTOM, 0.0, 0
    for number, (longest, texts) in enumerate(classes):
        left, right = _LEFT + number * step, _LEFT + (number + 1) * step
        height = (floor - _TOP) * texts / most
        if texts > 0:
            shape = {"x": left + 1, "y": floor - height, "width": step - 2, "height": max(1.0, height)}
            bar = _add(svg, "rect", "bin", **shape)
            reach = f"more than {count(shorter)}" if longest is None else f"{count(shorter + 1)} to {count(longest)}"
            ElementTree.SubElement(bar, "title").text = f"{quantity(texts, nouns)} of {reach} tokens"
            if _CHARACTER * len(count(texts)) < step:
                _text(svg, (left + right) / 2, floor - height - 5, count(texts), "middle")
        shorter = longest or shorter
        if longest is None:
            continue
        # The bound of a class stands below its end.
        half = _CHARACTER * len(count(longest)) / 2
        end = "end" if right + half > size.width else "middle"
        if (right - half if end == "middle" else right - 2 * half) > free_from:
            _text(svg, right, floor + 15, count(longest), end)
            free_from = right + half + 4
        if longest == limit:
            line = {"x1": right, "x2": right, "y1": 18.0, "y2": floor}
            _add(svg, "line", "mark limit", **line)
            beyond = right + _CHARACTER * len(label) + 6 > size.width
            _text(svg, right - 5 if beyond else right + 5, 14.0, label, "end" if beyond else "start")
    base = {"x1": _LEFT, "x2": size.width - _RIGHT, "y1": floor, "y2": floor}
    _add(svg, "line", "axis", **base)
    _text(svg, size.width / 2, _HEIGHT - 4, "tokens", "middle")
    return ElementTree.tostring(svg, encoding="unicode")


def _add(svg: ElementTree.Element, tag: str, style: str, **place: float) -> ElementTree.Element:
    return ElementTree.SubElement(svg, tag, {"class": style, **{name: f"{value:.1f}" for name, value in place.items()}})


def _text(svg: ElementTree.Element, x: float, y: float, text: str, anchor: str) -> None:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    ElementTree.SubElement(svg, "text", place).text = text
