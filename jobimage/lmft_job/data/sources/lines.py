"""Lines of a text file with their numbers, for any line ending."""

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmft_job.data.problems import Problems

BOM = b"\xef\xbb\xbf"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class DataFile:
    """One file.

    Attributes:
        path: its local path.
        name: its name in messages.
    """

    path: Path
    name: str


class PlacedRow(dict[str, Any]):
    """A row that knows its file and line."""

    __slots__ = ("file", "line")

    def __init__(self, row: Mapping[str, Any], file: DataFile, line: int) -> None:
        super().__init__(row)
        self.file, self.line = file.name, line


class Places:
    """Where each row of a data set is; 8 bytes of memory for each."""

    def __init__(self) -> None:
        self._lines = array("q")
        self._files: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, row: Any) -> None:
        """The next row."""
        line = getattr(row, "line", 0)
        if line and (not self._files or self._files[-1][1] != row.file):
            self._files.append((len(self._lines), row.file))
        self._lines.append(line)

    def of(self, number: int) -> str:
        """For people: ``chats.jsonl: line 12``, or ``row 12`` where there are no lines."""
        if not self._lines[number]:
            return f"row {number + 1:,}"
        file = next(name for first, name in reversed(self._files) if first <= number)
        return f"{file}: line {self._lines[number]:,}"


def lines(file: DataFile, problems: Problems) -> Iterator[tuple[int, str]]:
    """Lines with their endings and numbers, from 1; a line that is not UTF-8 is reported with its byte and skipped."""
    offset = 0
    for number, raw in enumerate(raw_lines(file.path), 1):
        line = raw[3:] if number == 1 and raw.startswith(BOM) else raw
        try:
            yield number, line.decode()
        except UnicodeDecodeError as error:
            at = offset + len(raw) - len(line) + error.start
            problems.add(
                f"spec.dataset.files: {file.name}: byte {at} (line {number}) is not UTF-8; convert the file, if it is "
                "from Windows with: iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW"
            )
            if problems.full:
                return
        offset += len(raw)


def raw_lines(path: Path) -> Iterator[bytes]:
    r"""Lines that end in ``\n``, ``\r\n`` or ``\r``, as Python and ``datasets`` read text; ends included."""
    pending: list[bytes] = []
    held = b""  # a \r at the end of a piece, whose \n may come in the next one
    with path.open("rb") as source:
        while chunk := source.read(_CHUNK):
            chunk = held + chunk
            held = b"\r" if chunk.endswith(b"\r") else b""
            pieces = chunk[: len(chunk) - len(held)].splitlines(keepends=True)
            if not pieces:
                continue
            if len(pieces) > 1 or pieces[0].endswith((b"\n", b"\r")):
                pieces[0] = b"".join([*pending, pieces[0]])
                pending = []
            if not pieces[-1].endswith((b"\n", b"\r")):
                pending.append(pieces.pop())
            yield from pieces
    if last := b"".join(pending) + held:
        yield last
