"""Rows of conversations on disk: ids, which of them are trained on, and where conversations begin within a pack."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from lmft_job.data.chat.masks import MarkedRow
from lmft_job.data.isolated.collate import starts_of
from lmft_job.data.rows import BATCH_ROWS, Ids, Item, Rows, arrow_of, narrowest, numpy_of
from lmft_job.tasks.base import IGNORED


class PackWriter:
    """Writes packs: each of one conversation or of several, one after the other."""

    def __init__(self, path: Path, bound: int) -> None:
        self.packs = 0
        self._dtype = narrowest(bound)
        kind = pa.list_(pa.from_numpy_dtype(self._dtype))
        self._schema = pa.schema(
            [("input_ids", kind), ("trained", pa.list_(pa.uint8())), ("lengths", pa.list_(pa.int32()))]
        )
        self._file = pa.OSFile(str(path), "wb")
        self._stream = pa.ipc.new_stream(self._file, self._schema)
        self._waiting: list[list[MarkedRow]] = []

    def add(self, rows: list[MarkedRow]) -> None:
        """Append one pack."""
        self._waiting.append(rows)
        self.packs += 1
        if len(self._waiting) == BATCH_ROWS:
            self._write()

    def close(self) -> None:
        """Write the buffered packs."""
        if self._waiting:
            self._write()
        self._stream.close()
        self._file.close()

    def _write(self) -> None:
        columns = [
            _lists([np.concatenate([row.ids for row in pack]).astype(self._dtype) for pack in self._waiting]),
            _lists([np.concatenate([row.trained for row in pack]).astype(np.uint8) for pack in self._waiting]),
            _lists([np.array([len(row.ids) for row in pack], np.int32) for pack in self._waiting]),
        ]
        self._stream.write_batch(pa.record_batch(columns, schema=self._schema))
        self._waiting = []

    def __enter__(self) -> "PackWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _lists(values: list[Ids]) -> pa.Array:
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    return pa.ListArray.from_arrays(arrow_of(offsets), arrow_of(np.concatenate(values)))


class ConversationRows(Rows):
    """Packs of conversations: ``input_ids``, ``labels`` and ``lengths`` of the conversations, 1-D int64.

    A label is its token where that is trained on, IGNORED elsewhere; the first token of a conversation never is.
    """

    def _open(self) -> None:
        super()._open()
        self._views = [
            tuple((numpy_of(batch.column(name).offsets), numpy_of(batch.column(name).values)) for name in _COLUMNS)
            for batch in self._batches
        ]

    def __getitem__(self, index: int) -> Item:
        ids, trained, lengths = self._columns(index % len(self))
        labels = np.where(trained == 1, ids, IGNORED)
        labels[starts_of(lengths)] = IGNORED
        return {"input_ids": ids, "labels": labels, "lengths": lengths}

    def lengths(self) -> Ids:
        """Tokens of each pack."""
        return np.concatenate([np.diff(views[0][0]) for views in self._views]) if self._views else np.empty(0, np.int64)

    def padded_lengths(self) -> Ids | None:
        """Tokens of each pack, where each is of one conversation."""
        shared = any((np.diff(views[2][0]) > 1).any() for views in self._views)
        return None if shared else self.lengths()

    def marked(self, index: int) -> MarkedRow:
        """A pack as one row with its marks."""
        ids, trained, _ = self._columns(index)
        return MarkedRow(ids, trained == 1, ())

    def _columns(self, index: int) -> list[Ids]:
        batch, row = divmod(index, BATCH_ROWS)
        return [values[offsets[row] : offsets[row + 1]].astype(np.int64) for offsets, values in self._views[batch]]


_COLUMNS = ("input_ids", "trained", "lengths")


def repacked(rows: ConversationRows, packs: Iterable[list[int]], path: Path, bound: int) -> int:
    """Write packs of stored rows; returns their number."""
    with PackWriter(path, bound) as writer:
        for pack in packs:
            writer.add([rows.marked(number) for number in pack])
    return writer.packs
