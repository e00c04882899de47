"""Rows from CSV, as in RFC 4180 and as spreadsheets write it."""

import csv
import re
import sys
from collections.abc import Iterator
from typing import Any

from lmft_job.data.problems import Problems
from lmft_job.data.sources.lines import DataFile, PlacedRow, lines

_SEPARATORS = ",;\t|"
_DIRECTIVE = re.compile(r"^sep=(.)\s*$")


def csv_rows(file: DataFile, columns: list[str], problems: Problems) -> Iterator[dict[str, Any]]:
    """Rows keyed by the names in the first non-empty line; an empty cell is None, a column without a name is left out.

    Cells are separated by commas, or by what separates the wanted names in the header: semicolon, tab or bar.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    separator, skipped = _separator(file, columns)
    source = (line for number, line in lines(file, problems) if number > skipped)
    reader = csv.reader(source, strict=True, delimiter=separator)
    start = skipped + 1
    try:
        header = _header(reader)
        if wrong := _unusable(header, columns):
            problems.add(f"spec.dataset.files: {file.name}{wrong}")
            return
        start = skipped + reader.line_num + 1
        for cells in reader:
            extra = cells[len(header) :]
            if len(cells) >= len(header) and not any(extra):
                row = {name: cell if cell != "" else None for name, cell in zip(header, cells, strict=False) if name}
                yield PlacedRow(row, file, start)
            elif cells:
                problems.add(
                    f"spec.dataset.files: {file.name}: line {skipped + reader.line_num} has "
                    f"{_counted(len(cells), 'value')}, the first line names {_counted(len(header), 'column')}; "
                    + ("quote values that hold commas" if len(cells) > len(header) else "add what is missing")
                )
                if problems.full:
                    return
            start = skipped + reader.line_num + 1
    except csv.Error as error:
        problems.add(
            f"spec.dataset.files: {file.name}: line {start} is not CSV ({error}); close every quote, and write one "
            "within quotes twice"
        )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _separator(file: DataFile, columns: list[str]) -> tuple[str, int]:
    """The cell separator, and the number of lines before the header."""
    for number, line in lines(file, Problems()):
        if not line.strip():
            continue
        if said := _DIRECTIVE.match(line):  # Excel's own
            return said[1], number
        for separator in _SEPARATORS:
            names = {name.strip() for name in next(csv.reader([line], delimiter=separator), [])}
            if names & set(columns):
                return separator, 0
        break
    return ",", 0


def _header(reader: Any) -> list[str]:
    for cells in reader:
        if any(cell.strip() for cell in cells):
            return [cell.strip() for cell in cells]
    return []


def _unusable(header: list[str], columns: list[str]) -> str | None:
    twice = [name for name in dict.fromkeys(columns) if header.count(name) > 1]
    if twice:
        return f": two columns have the same name, {twice[0]!r}, in the first line; rename one"
    if header and header[0].startswith(("{", "[")) and not set(header) & set(columns):
        return " looks like JSON; set spec.dataset.format to json"
    return None
