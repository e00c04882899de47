"""Lines of a text file with their numbers, for any line ending."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
