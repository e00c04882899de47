r"""Rows from JSON: one object per line, objects over several lines, or arrays of objects; read as streams."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from lmft_job.data.problems import Problems
from lmft_job.data.sources.lines import DataFile, PlacedRow, lines
from lmft_job.data.text.fields import is_turn

Row = dict[str, Any]
JSON_CHUNK = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")
_HALF = 32
_LONG_NUMBER = "a number has thousands of digits; put it in quotes"
"""Characters from the end in which an error may be due to a cut piece: part of a word, a number or an escape."""


def json_rows(file: DataFile, columns: list[str], problems: Problems, *, alone: bool) -> Iterator[Row]:
    """The objects of a file; every error is reported with its line.

    Args:
        file: file to read.
        columns: names that text and label may have.
        problems: receives what is wrong. If objects are on lines of their own, reading continues after an error.
        alone: whether it is the only file.
    """
    repeats = Repeats(columns)
    rows = _by_line(file, repeats, problems) if _a_line_each(file) else _Values(file, repeats, problems).objects()
    first = next(rows, None)
    if first is None:
        return
    second = next(rows, None)
    if second is None and (what := _whole_table(first, columns, alone)):
        problems.add(f"spec.dataset.files: {file.name} {what}")
        return
    yield first
    if second is not None:
        yield second
        yield from rows


def _a_line_each(file: DataFile) -> bool:
    """Whether every object is on a line of its own: JSON lines, even with errors."""
    with file.path.open("rb") as source:
        if source.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
            return False
    written = (line for _, line in lines(file, Problems()) if line.strip())
    first, second = next(written, ""), next(written, "")
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        # A truncated line is followed by another object; an object over several lines by its fields.
        return not first.lstrip().startswith("{") or not second or second.startswith("{")
    return True


class Repeats:
    """Finds a field that occurs twice in an object, of which ``json`` silently keeps the last."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._names = {name for column in columns for name in (column, *column.split("."))}
        self._marks = [json.dumps(name) for name in self._names] + [
            json.dumps(name, ensure_ascii=False) for name in self._names if not name.isascii()
        ]

    def find(self, written: str) -> str | None:
        """A name needed by text or label that occurs twice; usually None, and quickly."""
        if not any(written.count(mark) > 1 for mark in self._marks):
            return None
        try:
            return self._within(json.loads(written, object_pairs_hook=_Pairs))
        except RecursionError:  # no text field is that deep
            return None

    def _within(self, value: Any) -> str | None:
        inner = value if isinstance(value, list) else []
        if isinstance(value, _Pairs):
            if twice := next((name for name in value.twice if name in self._names), None):
                return twice
            inner = [value[name] for name in self._names if name in value]
        return next(filter(None, map(self._within, inner)), None)


class _Pairs(dict[str, Any]):
    """An object that knows which of its names occurred twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counts = Counter(name for name, _ in pairs) if len(self) < len(pairs) else {}
        self.twice = [name for name, count in counts.items() if count > 1]


def _by_line(file: DataFile, repeats: Repeats, problems: Problems) -> Iterator[Row]:
    for number, line in lines(file, problems):
        if not line.strip():
            continue
        where = f"spec.dataset.files: {file.name}: line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            what = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else _LONG_NUMBER
            problems.add(f"{where} is not JSON ({what})")
        except RecursionError:
            problems.add(f"{where} is nested too deeply")
        else:
            if isinstance(row, dict):
                if twice := repeats.find(line):
                    problems.add(f"{where} {_twice(twice)}")
                yield PlacedRow(row, file, number)
            else:
                problems.add(f'{where} is not an object such as {{"text": …}}')
        if problems.full:
            return


class _Values:
    """Objects and arrays of objects in sequence, read in pieces; reading ends at the first error."""

    def __init__(self, file: DataFile, repeats: Repeats, problems: Problems) -> None:
        self._file = file
        self._repeats = repeats
        self._problems = problems
        self._pieces = lines(file, problems)
        self._held, self._at, self._line = "", 0, 1
        self._decoder = json.JSONDecoder()

    def objects(self) -> Iterator[Row]:
        """Every object, in an array or not."""
        in_array = comma = False
        while (found := self._next_character()) is not None:
            if not in_array and found == "[":
                in_array, comma = True, False
                self._at += 1
            elif in_array and found == "]":
                in_array = False
                self._at += 1
            elif in_array and comma:
                if found != ",":
                    self._wrong(f": expected ',' or ']' in the array, not {found!r}")
                    return
                comma = False
                self._at += 1
            elif found != "{":
                what = "an element is not an object" if in_array else f"expected an object or an array, not {found!r}"
                self._wrong(f": {what}")
                return
            elif (row := self._decode()) is not None:
                comma = in_array
                yield row
            else:
                return
        if in_array:
            self._wrong(" is not JSON (the array is not closed)")

    def _next_character(self) -> str | None:
        """The next character that is not white space; None at the end."""
        while True:
            match = _SPACE.match(self._held, self._at)
            end = match.end() if match else self._at
            self._line += self._held.count("\n", self._at, end)
            self._at = end
            if end < len(self._held):
                return self._held[end]
            if not self._more():
                return None

    def _decode(self) -> Row | None:
        """The object that begins here; None, with the error reported, if it is not one."""
        while True:
            try:
                row, end = self._decoder.raw_decode(self._held, self._at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos > len(self._held) - _HALF
                if cut and self._more():
                    continue
                self._line += self._held.count("\n", self._at, error.pos)
                self._wrong(f" is not JSON ({error.msg})")
                return None
            except RecursionError:
                self._wrong(" is nested too deeply")
                return None
            except ValueError:
                self._wrong(f" is not JSON ({_LONG_NUMBER})")
                return None
            if twice := self._repeats.find(self._held[self._at : end]):
                self._wrong(f" {_twice(twice)}")
            placed = PlacedRow(row, self._file, self._line)
            self._line += self._held.count("\n", self._at, end)
            self._at = end
            return placed

    def _more(self) -> bool:
        """Read more: doubles the buffer, so that one long object is not parsed repeatedly. False at the end."""
        rest = self._held[self._at :]
        pieces, size = [rest], 0
        for _, text in self._pieces:
            # Any line ending; JSON strings contain none.
            pieces.append(text.rstrip("\r\n") + "\n" if text.endswith(("\r", "\n")) else text)
            size += len(text)
            if size >= max(JSON_CHUNK, len(rest)):
                break
        if size:
            self._held, self._at = "".join(pieces), 0
        return size > 0

    def _wrong(self, what: str) -> None:
        self._problems.add(f"spec.dataset.files: {self._file.name}: line {self._line}{what}")


def _twice(name: str) -> str:
    return f"has the field {name!r} twice in an object; keep one of them"


def _whole_table(row: Row, columns: list[str], alone: bool) -> str | None:
    """The message if a file's only object is the whole table and not a row of it."""
    values = list(row.values())
    lists = bool(values) and all(isinstance(value, list) and not _structs(value) for value in values)
    if lists and len({len(value) for value in values}) == 1 and len(values[0]) > 1 and (alone or len(values) > 1):
        return _by_columns(len(values[0]))
    keyed = bool(values) and all(isinstance(value, dict) and len(value) > 1 for value in values)
    if keyed and all(str(key).isdecimal() for value in values for key in value):
        return _by_columns(len(values[0]))
    if any(name in row for name in columns):
        return None
    for name, value in row.items():
        if _structs(value) and not any(map(is_turn, value)):  # turns are one conversation, which is a row
            return (
                f"is one object that holds its {len(value):,} rows in {name!r}; write only these, one object per line: "
                f"jq -c '.[\"{name}\"][]' FILE > rows.jsonl"
            )
    return None


def _structs(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)


def _by_columns(rows: int) -> str:
    return (
        f"is a table of {rows:,} rows written by columns; write one object per line, "
        'with pandas: df.to_json("rows.jsonl", orient="records", lines=True)'
    )
