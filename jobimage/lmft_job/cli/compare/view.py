"""A comparison for people, as terminal tables, and for machines."""

from typing import Any

from pydantic.alias_generators import to_camel
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lmft_api.text.shown import one_line
from lmft_job.cli.compare.comparison import Comparison
from lmft_job.report.formatting import shown_within

_LONGEST_VALUE = 60
_LONGEST_ANSWER = 300


def render(found: Comparison) -> RenderableType:
    """Figures, what differs, samples, and the verdict."""
    parts: list[RenderableType] = [_figures(found)]
    if found.differences:
        parts += [Text(), _differences(found)]
    for prompt, answers in found.samples.items():
        parts += [Text(), Text(f"“{one_line(prompt, _LONGEST_VALUE)}”", style="bold")]
        width = max(map(len, found.titles))
        parts += [
            Text(f"  {one_line(title):<{width}}  {one_line(answer, _LONGEST_ANSWER)}")
            for title, answer in zip(found.titles, answers, strict=True)
        ]
    return Group(*parts, Text(), Text(one_line(found.verdict), style="bold"))


def _figures(found: Comparison) -> Table:
    table = _table(found, "after training")
    for kind, values in found.figures.items():
        cells = ["–" if value is None else shown_within(kind, *value) for value in values]
        table.add_row(kind.label or kind.word, *cells)
    return table


def _differences(found: Comparison) -> Table:
    table = _table(found, "settings that differ")
    for path, values in found.differences.items():
        table.add_row(one_line(path), *(one_line(value, _LONGEST_VALUE) for value in values))
    return table


def _table(found: Comparison, title: str) -> Table:
    table = Table(title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column(title)
    for index, name in enumerate(found.titles):
        table.add_column(Text(one_line(name)), style="green" if index == found.best else None, overflow="fold")
    return table


def as_json(found: Comparison) -> dict[str, Any]:
    """The comparison as plain data, with the report's names."""
    return {
        "runs": found.titles,
        "figures": {
            to_camel(kind.name): [
                None if value is None else {"value": value[0], "standardError": value[1]} for value in values
            ]
            for kind, values in found.figures.items()
        },
        "differences": found.differences,
        "samples": found.samples,
        "best": None if found.best is None else found.titles[found.best],
        "verdict": found.verdict,
    }
