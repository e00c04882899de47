"""Rows from files: json, text, csv and parquet, read as streams.

Errors in a file are collected with their line or byte and reading continues, so that all are reported at once.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from lmft_api.spec import DataFormat
from lmft_job.data.problems import Problems
from lmft_job.data.sources.csv_rows import csv_rows
from lmft_job.data.sources.json_rows import json_rows
from lmft_job.data.sources.lines import DataFile, lines
from lmft_job.data.text.fields import listed

Row = dict[str, Any]
Batches = Iterator[list[Row]]
_BATCH = 1000
_LOOKED_AT = 4096
_LFS = (
    "is a Git LFS pointer, not the data itself; fetch that with git lfs pull, or download the file instead of cloning"
)
_UNPACK = "unpack it"
_NOT_TEXT = {
    b"version https://git-lfs.github.com/spec/": _LFS,
    b"/annex/objects/": "is a git-annex pointer, not the data itself; fetch that with git annex get",
    b"\x1f\x8b": f"is compressed (gzip); {_UNPACK}",
    b"PK\x03\x04": f"is an archive (zip, or an Excel workbook); {_UNPACK}, or save the sheet as CSV",
    b"\x28\xb5\x2f\xfd": f"is compressed (zstd); {_UNPACK}",
    b"\xfd7zXZ": f"is compressed (xz); {_UNPACK}",
    b"BZh91AY&SY": f"is compressed (bzip2); {_UNPACK}",
    b"\x04\x22\x4d\x18": f"is compressed (lz4); {_UNPACK}",
    b"7z\xbc\xaf\x27\x1c": f"is an archive (7z); {_UNPACK}",
    b"PAR1": "is a parquet file; set spec.dataset.format to parquet",
    b"ARROW1": "is an Arrow file; save it as parquet",
    b"%PDF": "is a PDF; extract its text first",
    b"SQLite format 3\x00": "is an SQLite database; export the table as CSV",
    b"\xd0\xcf\x11\xe0": "is an old Office file; save it as CSV",
    b"\xff\xfe\x00\x00": "is UTF-32; convert it to UTF-8",
    b"\x00\x00\xfe\xff": "is UTF-32; convert it to UTF-8",
    b"\xff\xfe": "is UTF-16; convert it to UTF-8",
    b"\xfe\xff": "is UTF-16; convert it to UTF-8",
}
_PAGE = (b"<!doctype html", b"<html")


def read(file: DataFile, kind: DataFormat, columns: list[str], problems: Problems, *, alone: bool = False) -> Batches:
    """Batches of rows.

    Args:
        file: file to read.
        kind: its format.
        columns: top-level names that text and label may have; only these are read from parquet.
        problems: receives what is wrong.
        alone: whether it is the only file.
    """
    with file.path.open("rb") as source:
        start = source.read(_LOOKED_AT)
    what = _not_rows(start, kind)
    if what is not None:
        problems.add(f"spec.dataset.files: {file.name} {what}")
        return iter(())
    readers: dict[DataFormat, Callable[[], Iterator[Row]]] = {
        DataFormat.JSON: lambda: json_rows(file, columns, problems, alone=alone),
        DataFormat.TEXT: lambda: ({"text": line.rstrip("\r\n")} for _, line in lines(file, problems)),
        DataFormat.CSV: lambda: csv_rows(file, columns, problems),
    }
    return _parquet(file, columns, problems, alone=alone) if kind == DataFormat.PARQUET else _batched(readers[kind]())


def _not_rows(start: bytes, kind: DataFormat) -> str | None:
    """Why a file that begins like this is not of its format."""
    for magic, what in _NOT_TEXT.items():
        if start.startswith(magic) and not (magic == b"PAR1" and kind == DataFormat.PARQUET):
            return what
    if kind == DataFormat.PARQUET:
        return None
    if start[257:262] == b"ustar":
        return f"is an archive (tar); {_UNPACK}"
    if start.count(b"\0") > len(start) // 4:
        return "is not UTF-8 text: every other byte is 0, as in UTF-16 without a byte order mark; convert it to UTF-8"
    if kind != DataFormat.TEXT and start.lstrip().lower().startswith(_PAGE):
        return "is a web page; download the file itself"
    return None


def label_names(file: DataFile, field: str) -> list[str] | None:
    """Names of a ClassLabel column, which ``datasets`` stores in a parquet file's metadata; None otherwise."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(str(file.path)).metadata or {}
        feature = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        for name in [field] if field in feature else field.split("."):
            feature = feature[name]
        names = feature["names"]
        return [str(name) for name in (names.values() if isinstance(names, dict) else list(names))]
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, RecursionError):
        return None  # errors in the file are reported when its rows are read


def _batched(rows: Iterator[Row]) -> Batches:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _parquet(file: DataFile, columns: list[str], problems: Problems, *, alone: bool) -> Batches:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(str(file.path)) as source:
            names = source.schema_arrow.names
            twice = [name for name in dict.fromkeys(columns) if names.count(name) > 1]
            if twice:
                problems.add(
                    f"spec.dataset.files: {file.name}: two columns have the same name, {twice[0]!r}; rename one"
                )
                return
            present = [name for name in columns if name in names]
            if not present and not alone:
                problems.add(f"spec.dataset.files: {file.name} has no column {columns[0]!r}; it has {listed(names)}")
                return
            if not present:
                # A few rows are enough for the message that lists the existing fields.
                yield [dict.fromkeys(names), *next(source.iter_batches(batch_size=10), pa.table({})).to_pylist()]
                return
            for batch in source.iter_batches(batch_size=_BATCH, columns=present):
                yield batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError, OverflowError, RecursionError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        problems.add(
            f"spec.dataset.files: {file.name} is not a readable parquet file ({said}); download or write it again"
        )
