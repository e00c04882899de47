"""Texts on disk: one file of UTF-8 and one of offsets, with random access, neither held in memory."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lmft_job.data.sources.splits import Indices

BATCH_CHARACTERS = 1 << 20
BATCH_TEXTS = 2048


class TextWriter:
    """Appends texts; a row without text takes no bytes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.rows = 0
        self._bytes = (folder / "texts").open("wb")
        self._offsets = (folder / "offsets").open("wb")
        self._end = 0
        np.zeros(1, np.int64).tofile(self._offsets)

    def add(self, texts: list[str | None]) -> None:
        """Append some rows."""
        encoded = [b"" if text is None else _utf8(text) for text in texts]
        ends = self._end + np.cumsum([len(entry) for entry in encoded], dtype=np.int64)
        self._bytes.write(b"".join(encoded))
        ends.tofile(self._offsets)
        self._end = int(ends[-1]) if len(ends) else self._end
        self.rows += len(texts)

    def __enter__(self) -> "TextWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._bytes.close()
        self._offsets.close()


class Texts:
    """Texts written by :class:`TextWriter`.

    They are read, not memory-mapped: with random access, the kernel would map the pages around each text too, and the
    resident set would grow to the size of the file.
    """

    def __init__(self, folder: Path) -> None:
        self._offsets = np.memmap(folder / "offsets", np.int64, "r")
        self._path = folder / "texts"

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def present(self, rows: Indices) -> Indices:
        """Those of the rows that have a text, in the same order."""
        kept: Indices = rows[self._offsets[rows + 1] > self._offsets[rows]]
        return kept

    def batches(self, rows: Indices) -> Iterator[list[str]]:
        """The texts of the given rows, in order, in batches of about a megabyte."""
        batch: list[str] = []
        size = 0
        with self._path.open("rb", buffering=0) as source:
            descriptor = source.fileno()
            for chunk in range(0, len(rows), BATCH_TEXTS):
                wanted = rows[chunk : chunk + BATCH_TEXTS]
                for start, end in zip(self._offsets[wanted].tolist(), self._offsets[wanted + 1].tolist(), strict=True):
                    batch.append(_read(descriptor, start, end - start).decode())
                    size += end - start
                    if size >= BATCH_CHARACTERS or len(batch) == BATCH_TEXTS:
                        yield batch
                        batch, size = [], 0
        if batch:
            yield batch


def _read(descriptor: int, start: int, length: int) -> bytes:
    data = os.pread(descriptor, length, start)
    while len(data) < length:  # one call returns at most 2 GiB, or less when a signal arrives
        more = os.pread(descriptor, length - len(data), start + len(data))
        if not more:
            raise OSError(errno.EIO, "the texts were cut short in transfer")
        data += more
    return data


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # lone surrogates, which JSON can carry and UTF-8 cannot
        return text.encode("utf-8", "replace")
