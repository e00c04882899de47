"""Files given as plain text that look like another format, whose markup would otherwise be trained on silently."""

import csv
import json
import re
from collections.abc import Sequence
from typing import Any

from lmft_job.data.sources.lines import BOM, DataFile
from lmft_job.data.text.fields import CONVERT_CONVERSATIONS, is_turn, listed

_SAMPLE = 1 << 18
"""Bytes that are examined. Single-line texts beyond it are accepted."""
_LINES = 100
_FEWEST = 3
"""Lines that must agree to tell the format from prose."""
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,40}")
_MARKUP = {
    "HTML": re.compile(r"<!doctype html|<html[\s>]", re.I),
    "XML": re.compile(r"<\?xml\s|<[A-Za-z][\w:.-]*\sxmlns[:=]"),
    "RTF": re.compile(r"\{\\rtf\d"),
    "a Jupyter notebook (JSON)": re.compile(r'\{\s*"(cells|nbformat)"\s*:'),
}


class LooksLikeRowsError(ValueError):
    """The file certainly contains rows of another format; the message is meant to follow the file's name."""


def look_alike(file: DataFile) -> str | None:
    """The other format that a file given as plain text looks like; None for text.

    Raises:
        LooksLikeRowsError: its lines are objects with a text, or with a conversation.
    """
    with file.path.open("rb") as source:
        start = source.read(_SAMPLE)
    text = start.removeprefix(BOM).decode("utf-8", "ignore")
    lines = [line for line in re.split(r"\r\n|\n|\r", text) if line.strip()]
    if len(start) == _SAMPLE and len(lines) > 1:
        lines.pop()  # may be truncated
    lines = lines[:_LINES]
    head = text[:1000].lstrip()
    markup = next((name for name, begins in _MARKUP.items() if begins.match(head)), None)
    return markup or _json(lines, text.lstrip()) or _table(lines)


def _json(lines: list[str], text: str) -> str | None:
    values = [_parsed(line) for line in lines]
    objects: list[dict[Any, Any]] = [value for value in values if isinstance(value, dict)]
    if objects and len(objects) == len(lines):
        _refuse_rows(objects)
        return f"JSON objects with the fields {listed(list(objects[0]))}"
    if lines and all(isinstance(value, list) for value in values):
        inner = [row for value in values for row in value]
        if any(map(is_turn, inner)):
            raise LooksLikeRowsError(_CONVERSATIONS)
        if inner and all(isinstance(row, dict) for row in inner):
            _refuse_rows(inner)
        return "JSON arrays"
    # Objects over several lines, or truncated: recognised by how an object or an array of objects begins.
    return "JSON" if re.match(r'[\[{]\s*[{"]', text) and re.match(r'[\[{\s]*"[^"\n]*"\s*:', text) else None


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


_CONVERSATIONS = (
    f"contains conversations as JSON, and would be trained on with all its braces. {CONVERT_CONVERSATIONS}, and set "
    "spec.dataset.format to json"
)


def _refuse_rows(objects: Sequence[dict[Any, Any]]) -> None:
    """Raises LooksLikeRowsError for rows that are recognised by their fields."""
    for row in objects:
        if any(isinstance(value, list) and any(map(is_turn, value)) for value in row.values()):
            raise LooksLikeRowsError(_CONVERSATIONS)
    if all(isinstance(row.get("text"), str) for row in objects):
        raise LooksLikeRowsError(
            "contains JSON, one object with the field 'text' per row, and would be trained on with all its braces; "
            'set spec.dataset.format to json. If the JSON itself is the text, put it into a field: {"text": "{…}"}'
        )


def _table(lines: list[str]) -> str | None:
    """Whether the first line consists of names only, and every line after it has as many cells."""
    if len(lines) < _FEWEST:
        return None
    for mark, name in (",", "commas"), ("\t", "tabs"), (";", "semicolons"), ("|", "bars"):
        names = [cell.strip().strip('"') for cell in lines[0].split(mark)]
        if len(names) < 2 or not all(map(_NAME.fullmatch, names)):
            continue
        try:
            widths = {len(row) for row in csv.reader(lines[1:-1] or lines[1:], delimiter=mark)}
        except csv.Error:
            continue
        if widths == {len(names)}:
            return f"a table with the columns {listed(names)}, between {name}"
    return None
