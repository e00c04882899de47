"""A sweep's runs beside each other: one table, for people and for machines."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic.alias_generators import to_camel
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lmft_api.text.shown import one_line
from lmft_api.wire.report import Report
from lmft_job.cli.compare.comparison import Comparison, compare
from lmft_job.cli.sweep.plan import Member
from lmft_job.report.formatting import shown_within

Done = Sequence[tuple[Member, Report]]


def render(done: Done, failed: Mapping[str, int]) -> list[RenderableType]:
    """The table, the runs that failed, and which is best."""
    parts: list[RenderableType] = []
    found = _compared(done)
    if found is not None:
        parts += [_table(done, found), Text()]
    parts += [Text(f"{name}: failed (exit code {code})", style="red") for name, code in failed.items()]
    if found is not None and len(done) > 1:
        parts.append(Text(one_line(found.verdict), style="bold"))
    return parts


def as_plain(done: Done, failed: Mapping[str, int]) -> dict[str, Any]:
    """The same as plain data."""
    found = _compared(done)
    rows = [
        {
            "name": member.name,
            "values": {change.field: change.value for change in member.changes},
            "figures": {
                to_camel(kind.name): {"value": values[at][0], "standardError": values[at][1]}  # type: ignore[index]
                for kind, values in (found.figures if found else {}).items()
                if values[at] is not None
            },
        }
        for at, (member, _) in enumerate(done)
    ]
    ranked = found is not None and len(done) > 1
    best = done[found.best][0].name if found is not None and ranked and found.best is not None else None
    return {"runs": rows, "failed": dict(failed), "best": best, "verdict": found.verdict if found and ranked else None}


def _compared(done: Done) -> Comparison | None:
    return compare([report for _, report in done], [member.title for member, _ in done]) if done else None


def _table(done: Done, found: Comparison) -> Table:
    fields = list(done[0][0].values)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for field in fields:
        table.add_column(Text(one_line(field)), overflow="fold")
    for kind in found.figures:
        table.add_column(Text(kind.label or kind.word), justify="right", no_wrap=True)
    table.add_column("")
    for at, (member, _) in enumerate(done):
        cells = [one_line(member.values[field]) for field in fields]
        for kind, values in found.figures.items():
            value = values[at]
            cells.append("–" if value is None else shown_within(kind, *value))
        table.add_row(*map(Text, cells), Text("best" if at == found.best else ""),
                      style="green" if at == found.best else None)  # fmt: skip
    return table
