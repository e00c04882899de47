"""Rows from files: json (lines or one array), text, csv and parquet, read as streams.

What is wrong in a file is noted with its line or byte and reading goes on, so that all of it is reported at once.
"""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lmft_api.spec import DataFormat

_NOT_TEXT = {
    b"\x1f\x8b": "is compressed (gzip); unpack it",
    b"PK\x03\x04": "is an archive (zip); unpack it",
    b"\x28\xb5\x2f\xfd": "is compressed (zstd); unpack it",
    b"\xfd7zXZ": "is compressed (xz); unpack it",
    b"BZh91AY&SY": "is compressed (bzip2); unpack it",
    b"PAR1": "is a parquet file; set spec.dataset.format to parquet",
    b"\xff\xfe": "is UTF-16; convert it to UTF-8",
    b"\xfe\xff": "is UTF-16; convert it to UTF-8",
}
Row = dict[str, Any]
Batches = Iterator[list[Row]]
MOST_PROBLEMS = 10
_BATCH = 1000
_JSON_CHUNK = 1 << 20
_BOM = b"\xef\xbb\xbf"


class Problems:
    """What is wrong with the data, in order; after :data:`MOST_PROBLEMS` only counted."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.more = 0

    def add(self, text: str) -> None:
        """Note one problem, beginning with its field path."""
        if text in self.found:
            return
        if len(self.found) < MOST_PROBLEMS:
            self.found.append(text)
        else:
            self.more += 1

    @property
    def full(self) -> bool:
        """Whether there is no point in looking further."""
        return self.more >= MOST_PROBLEMS

    def all(self) -> list[str]:
        """Every problem noted, and how many more there were."""
        more = [f"spec.dataset.files: at least {self.more} more problems like these"] if self.more else []
        return self.found + more


class DataFile:
    """One file: where it lies here, and what people call it."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name


def read(file: DataFile, kind: DataFormat, columns: list[str], problems: Problems) -> Batches:
    """Batches of rows; of parquet only the columns named, where the file has them."""
    with file.path.open("rb") as source:
        start = source.read(10)
    for magic, what in _NOT_TEXT.items():
        if start.startswith(magic) and not (magic == b"PAR1" and kind == DataFormat.PARQUET):
            problems.add(f"spec.dataset.files: {file.name} {what}")
            return iter(())
    readers: dict[DataFormat, Callable[[], Iterator[Row]]] = {
        DataFormat.JSON: lambda: _json(file, problems),
        DataFormat.TEXT: lambda: ({"text": line.rstrip("\r\n")} for _, line in _lines(file, problems)),
        DataFormat.CSV: lambda: _csv(file, problems),
    }
    return _parquet(file, columns, problems) if kind == DataFormat.PARQUET else _batched(readers[kind]())


def label_names(file: DataFile, field: str) -> list[str] | None:
    """Names of a ClassLabel column, which ``datasets`` notes in a parquet file's metadata; None elsewhere."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(str(file.path)).metadata or {}
        feature = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"][field]
        names = feature["names"]
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in (names.values() if isinstance(names, dict) else names)]


def _batched(rows: Iterator[Row]) -> Batches:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _lines(file: DataFile, problems: Problems) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, from 1; a line that is not UTF-8 is noted with its byte and left out."""
    offset = 0
    with file.path.open("rb") as source:
        for number, raw in enumerate(source, 1):
            line = raw[3:] if number == 1 and raw.startswith(_BOM) else raw
            try:
                yield number, line.decode()
            except UnicodeDecodeError as error:
                at = offset + len(raw) - len(line) + error.start
                problems.add(
                    f"spec.dataset.files: {file.name}: byte {at} (line {number}) is not UTF-8; convert the file"
                )
                if problems.full:
                    return
            offset += len(raw)


def _json(file: DataFile, problems: Problems) -> Iterator[Row]:
    with file.path.open("rb") as source:
        start = source.read(4096).removeprefix(_BOM).lstrip()
    if start.startswith(b"["):
        yield from _json_array(file, problems)
        return
    for number, line in _lines(file, problems):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            what = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            problems.add(f"spec.dataset.files: {file.name}: line {number} is not JSON ({what})")
        except RecursionError:
            problems.add(f"spec.dataset.files: {file.name}: line {number} is nested too deeply")
        else:
            if isinstance(row, dict):
                yield row
            else:
                problems.add(f'spec.dataset.files: {file.name}: line {number} is not an object such as {{"text": …}}')
        if problems.full:
            return


def _json_array(file: DataFile, problems: Problems) -> Iterator[Row]:
    """Objects of one array, read piece by piece; reading ends at the first mistake."""
    decoder = json.JSONDecoder()
    pieces = _lines(file, problems)
    held, line, expected = "", 1, "["
    exhausted = False
    while True:
        held_stripped = held.lstrip()
        line += held[: len(held) - len(held_stripped)].count("\n")
        held = held_stripped
        if held and expected in "[,":
            if held[0] == "]" and expected == ",":
                return
            if held[0] != expected:
                problems.add(f"spec.dataset.files: {file.name}: line {line}: expected {expected!r} or ']' in the array")
                return
            held, expected = held[1:], "value"
            continue
        if held.startswith("]"):
            return
        complete = ""
        if held:
            try:
                row, end = decoder.raw_decode(held)
            except ValueError as error:
                complete = str(error)
            else:
                if isinstance(row, dict):
                    yield row
                else:
                    problems.add(f"spec.dataset.files: {file.name}: line {line}: an element is not an object")
                    return
                line += held[:end].count("\n")
                held, expected = held[end:], ","
                continue
        if exhausted:
            what = complete or "the array is not closed"
            problems.add(f"spec.dataset.files: {file.name}: line {line} is not JSON ({what})")
            return
        piece, size = [], 0
        # Twice what is held, so that one long element is not parsed over and over.
        for _, text in pieces:
            piece.append(text)
            size += len(text)
            if size >= max(_JSON_CHUNK, len(held)):
                break
        else:
            exhausted = True
        held += "".join(piece)


def _csv(file: DataFile, problems: Problems) -> Iterator[Row]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    reader = csv.reader((line for _, line in _lines(file, problems)), strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            problems.add(f"spec.dataset.files: {file.name}: two columns have the same name in the first line")
            return
        for cells in reader:
            if len(cells) == len(header):
                yield {name: cell if cell != "" else None for name, cell in zip(header, cells, strict=True)}
            elif cells:
                problems.add(
                    f"spec.dataset.files: {file.name}: line {reader.line_num} has {len(cells)} values, "
                    f"the first line names {len(header)} columns; quote values that hold commas"
                )
                if problems.full:
                    return
    except csv.Error as error:
        problems.add(f"spec.dataset.files: {file.name}: line {reader.line_num} is not CSV ({error})")


def _parquet(file: DataFile, columns: list[str], problems: Problems) -> Batches:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(str(file.path)) as source:
            present = [name for name in columns if name in source.schema_arrow.names]
            for batch in source.iter_batches(batch_size=_BATCH, columns=present or source.schema_arrow.names):
                yield batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        problems.add(f"spec.dataset.files: {file.name} is not a readable parquet file ({str(error).splitlines()[0]})")
