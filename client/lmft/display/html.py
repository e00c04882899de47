"""Pieces of HTML in which everything that somebody else wrote is text."""

from collections.abc import Sequence
from html import escape

from lmft_api.text.shown import one_line, printable

_LONGEST = 600
_CELL = 'style="text-align:left;padding:2px 12px 2px 0"'


def text(words: str) -> str:
    """Words of a line, cut to what a line may have."""
    return escape(one_line(words, _LONGEST))


def rows_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    top = "".join(f"<th {_CELL}>{text(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td {_CELL}>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def details(prompt: str, before: str, after: str) -> str:
    """A sample, folded up."""
    return (
        f"<details><summary>{text(f'“{prompt}”')}</summary>"
        f"<div>before: {_whole(before)}</div><div>after: {_whole(after)}</div></details>"
    )


def _whole(words: str) -> str:
    return f'<span style="white-space:pre-wrap">{escape(printable(words))}</span>'
