"""Blocks of joined documents that say where their documents begin.

A document that does not end with its block is two: what is in the next block begins there with position 0 and sees
nothing of what is in the one before.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lmft_job.data.isolated.collate import starts_of
from lmft_job.data.rows import BATCH_ROWS, BlockRows, BlockWriter, Ids, Item, arrow_of, numpy_of
from lmft_job.tasks.base import IGNORED


class DocumentBlockWriter(BlockWriter):
    """Writes blocks with the lengths of the documents in each.

    Attributes:
        targets: tokens written that follow another token of their document.
    """

    def __init__(self, path: Path, block_size: int, bound: int) -> None:
        self.targets = 0
        self._cut = 0
        self._starts: list[Ids] = []
        super().__init__(path, block_size, bound)

    def add(self, ids: Ids, lengths: Ids | None = None) -> None:
        """Append the ids of some documents, with the length of each."""
        lengths = np.array([len(ids)]) if lengths is None else lengths[lengths > 0]
        self._starts.append(self.tokens + starts_of(lengths))
        super().add(ids)

    def _fields(self) -> list[tuple[str, pa.DataType]]:
        return [*super()._fields(), ("lengths", pa.list_(pa.int32()))]

    def _columns(self, flat: Ids) -> list[pa.Array]:
        begin, end = self._cut, self._cut + len(flat)
        blocks = np.arange(begin, end + 1, self._size)
        starts = np.concatenate(self._starts)
        here = starts < end
        pieces = np.union1d(starts[here], blocks)
        offsets = np.searchsorted(pieces, blocks).astype(np.int32)
        self.targets += len(flat) - len(pieces) + 1
        self._cut, self._starts = end, [starts[~here]]
        lengths = pa.ListArray.from_arrays(arrow_of(offsets), arrow_of(np.diff(pieces).astype(np.int32)))
        return [*super()._columns(flat), lengths]


class DocumentBlocks(BlockRows):
    """Blocks whose documents do not see each other: ``input_ids``, ``labels`` and ``lengths`` of the documents.

    A label is its token; the first token of a document is no target, since nothing before it may be seen.
    """

    def _open(self) -> None:
        super()._open()
        columns = [batch.column(1) for batch in self._batches]
        self._lengths = [(numpy_of(column.offsets), numpy_of(column.values)) for column in columns]

    def __getitem__(self, index: int) -> Item:
        row = index % len(self)
        ids = self.block(row)
        batch, place = divmod(row, BATCH_ROWS)
        offsets, values = self._lengths[batch]
        lengths: Any = values[offsets[place] : offsets[place + 1]].astype(np.int64)
        labels = ids.copy()
        labels[starts_of(lengths)] = IGNORED
        return {"input_ids": ids, "labels": labels, "lengths": lengths}
