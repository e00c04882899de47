"""Prepared rows on disk as Arrow, memory-mapped, and the order in which training reads them.

The files are Arrow IPC streams, so ``datasets.Dataset.from_file`` opens them too. Every record batch but the last has
:data:`BATCH_ROWS` rows, which makes finding a row a division.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch.utils.data import Sampler

from lmft_job.tasks.base import IGNORED

BATCH_ROWS = 4096

Ids = npt.NDArray[Any]
Item = dict[str, Any]


def narrowest(bound: int) -> np.dtype[Any]:
    """The smallest unsigned type that holds every id below a bound."""
    return np.dtype(np.uint16 if bound <= 1 << 16 else np.uint32)


def arrow_of(values: Ids) -> pa.Array:
    """Numbers as Arrow without a copy (``pa.array`` would import pandas first, half a second)."""
    flat = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(flat.dtype), len(flat), [None, pa.py_buffer(flat)])


def numpy_of(values: pa.Array) -> Ids:
    """Numbers of Arrow, without nulls, as numpy without a copy."""
    kind = values.type.to_pandas_dtype()
    return np.frombuffer(values.buffers()[1], kind, len(values), values.offset * np.dtype(kind).itemsize)


class BlockWriter:
    """Cuts a stream of ids into blocks of equal length and writes them as they arrive; drops the remainder."""

    def __init__(self, path: Path, block_size: int, bound: int) -> None:
        self.blocks = 0
        self.tokens = 0
        self._size = block_size
        self._dtype = narrowest(bound)
        self._schema = pa.schema(self._fields())
        self._file = pa.OSFile(str(path), "wb")
        self._stream = pa.ipc.new_stream(self._file, self._schema)
        self._pending: list[Ids] = []
        self._held = 0

    def add(self, ids: Ids, lengths: Ids | None = None) -> None:
        """Append the ids of some texts, 1-D; how long each is does not matter."""
        self.tokens += len(ids)
        self._pending.append(ids.astype(self._dtype, copy=False))
        self._held += len(ids)
        full = BATCH_ROWS * self._size
        if self._held >= full:
            flat = np.concatenate(self._pending)
            for start in range(0, len(flat) - full + 1, full):
                self._write(flat[start : start + full])
            rest = flat[len(flat) - len(flat) % full :].copy()
            self._pending, self._held = [rest], len(rest)

    def close(self) -> None:
        """Write the last full blocks."""
        flat = np.concatenate(self._pending) if self._pending else np.empty(0, self._dtype)
        whole = len(flat) - len(flat) % self._size
        if whole:
            self._write(flat[:whole])
        self._stream.close()
        self._file.close()

    def _write(self, flat: Ids) -> None:
        self._stream.write_batch(pa.record_batch(self._columns(flat), schema=self._schema))
        self.blocks += len(flat) // self._size

    def _fields(self) -> list[tuple[str, pa.DataType]]:
        return [("input_ids", pa.list_(pa.from_numpy_dtype(self._dtype), self._size))]

    def _columns(self, flat: Ids) -> list[pa.Array]:
        """The columns of some whole blocks."""
        return [pa.FixedSizeListArray.from_arrays(arrow_of(flat), self._size)]

    def __enter__(self) -> "BlockWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class RowWriter:
    """Writes rows of any length with their labels."""

    def __init__(self, path: Path, bound: int) -> None:
        self._dtype = narrowest(bound)
        self._schema = pa.schema([("input_ids", pa.list_(pa.from_numpy_dtype(self._dtype))), ("labels", pa.int32())])
        self._file = pa.OSFile(str(path), "wb")
        self._stream = pa.ipc.new_stream(self._file, self._schema)
        self._rows: list[Ids] = []
        self._labels: list[int] = []

    def add(self, ids: Ids, label: int) -> None:
        """Append one row: its ids, 1-D, and its label's number."""
        self._rows.append(ids.astype(self._dtype, copy=False))
        self._labels.append(label)
        if len(self._rows) == BATCH_ROWS:
            self._write()

    def close(self) -> None:
        """Write the buffered rows."""
        if self._rows:
            self._write()
        self._stream.close()
        self._file.close()

    def _write(self) -> None:
        offsets = np.zeros(len(self._rows) + 1, np.int32)
        np.cumsum([len(row) for row in self._rows], out=offsets[1:])
        lists = pa.ListArray.from_arrays(arrow_of(offsets), arrow_of(np.concatenate(self._rows)))
        self._stream.write_batch(
            pa.record_batch([lists, arrow_of(np.array(self._labels, np.int32))], schema=self._schema)
        )
        self._rows, self._labels = [], []

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


_OF_THE_FILE = ("_batches", "_views", "_labels", "_lengths")
"""Attributes of rows that are read from their file again after unpickling."""


class Rows(ABC):
    """Base of the data sets that a Trainer takes.

    An index may carry the epoch: ``epoch * len(rows) + row``, as :class:`EpochSampler` yields it. The content of a row
    is a pure function of that index, so a resumed run sees what an uninterrupted run would have seen.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()

    def _open(self) -> None:
        with pa.memory_map(str(self.path)) as source:
            self._batches: list[pa.RecordBatch] = pa.ipc.open_stream(source).read_all().to_batches()
        self._length = sum(batch.num_rows for batch in self._batches)

    def __len__(self) -> int:
        return int(self._length)

    @abstractmethod
    def __getitem__(self, index: int) -> Item:
        """The row at an index."""

    def padded_lengths(self) -> Ids | None:
        """Tokens of each row, where each is one text; None where all rows have one length, or texts share rows."""
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in _OF_THE_FILE}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


class BlockRows(Rows):
    """Packed blocks for causal language modelling: ``input_ids`` and ``labels``, both int64 of block_size.

    Labels equal the inputs: the model shifts them itself. No attention mask, since nothing is padded; attention crosses
    the boundaries of documents within a block, as it does in the tutorials.
    """

    def _open(self) -> None:
        super()._open()
        self._views: list[Ids] = []
        for batch in self._batches:
            self._views.append(numpy_of(batch.column(0).values).reshape(batch.num_rows, -1))

    def block(self, row: int) -> Ids:
        """Ids of one block, int64 of block_size, as a copy."""
        if not 0 <= row < self._length:
            raise IndexError(row)
        ids: Ids = self._views[row // BATCH_ROWS][row % BATCH_ROWS].astype(np.int64)
        return ids

    def __getitem__(self, index: int) -> Item:
        ids = self.block(index % self._length)
        return {"input_ids": ids, "labels": ids}


class LabelledRows(Rows):
    """Rows for classification: ``input_ids``, int64 of the text's own length, and ``labels``, one int."""

    def _open(self) -> None:
        super()._open()
        lists = [batch.column(0) for batch in self._batches]
        self._views = [(numpy_of(column.offsets), numpy_of(column.values)) for column in lists]
        self._labels = [numpy_of(batch.column(1)) for batch in self._batches]

    def __getitem__(self, index: int) -> Item:
        batch, row = divmod(index % self._length, BATCH_ROWS)
        offsets, values = self._views[batch]
        ids = values[offsets[row] : offsets[row + 1]].astype(np.int64)
        return {"input_ids": ids, "labels": int(self._labels[batch][row])}

    def padded_lengths(self) -> Ids:
        """Tokens of each row."""
        return np.concatenate([np.diff(offsets) for offsets, _ in self._views])


class EpochSampler(Sampler[int]):
    """The order in which a plain Trainer reads its data, each index carrying its epoch (see :class:`Rows`).

    The permutation of epoch e is ``torch.randperm`` seeded with seed + e, the same as accelerate's seedable sampler
    (accelerate replaces a RandomSampler, hence this is not a subclass). Trainer and accelerate call ``set_epoch``.
    """

    def __init__(self, length: int, seed: int) -> None:
        self.length = length
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration reads."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self.seed + self.epoch)
        first = self.epoch * self.length
        order = torch.randperm(self.length, generator=generator) + first
        self.epoch += 1
        yield from order.tolist()

    def __len__(self) -> int:
        return self.length


def stack_blocks(items: list[Item]) -> dict[str, torch.Tensor]:
    """Collator for blocks: every field stacked to int64 of (batch, block_size)."""
    return {key: torch.from_numpy(np.stack([item[key] for item in items])) for key in items[0]}


FILLER = "filler_rows"
"""Key of a batch whose last rows stand for nothing: a tensor as long as they are many. No model takes it."""


def filled(batch: dict[str, torch.Tensor], rows: int) -> dict[str, torch.Tensor]:
    """A batch with as many rows as all others have: its first row again, without a target."""
    missing = rows - len(batch["labels"])
    if missing <= 0:
        return batch
    more = {name: value[:1].expand(missing, *value.shape[1:]) for name, value in batch.items()}
    more["labels"] = torch.full_like(more["labels"], IGNORED)
    return {name: torch.cat([value, more[name]]) for name, value in batch.items()} | {FILLER: torch.ones(missing)}


class Padding(ABC):
    """A collator that pads rows to the longest of their batch.

    Attributes:
        lengths: of batches, ascending: each gets the smallest that holds its longest row; empty for that row's own.
    """

    lengths: tuple[int, ...] = ()

    @abstractmethod
    def __call__(self, items: list[Item]) -> dict[str, torch.Tensor]:
        """Pad and stack."""

    def within(self, lengths: tuple[int, ...]) -> Self:
        """The same with batches of these lengths."""
        made = copy.copy(self)
        made.lengths = lengths
        return made

    def length_of(self, items: list[Item]) -> int:
        """Tokens of a row in a batch of these."""
        longest = max(len(item["input_ids"]) for item in items)
        return next((length for length in self.lengths if length >= longest), longest)


class PadRows(Padding):
    """Collator for rows: padded to the longest of the batch, with ``attention_mask`` and ``labels`` (batch,)."""

    def __init__(self, pad_id: int, *, left: bool = False) -> None:
        self.pad_id = pad_id
        self.left = left

    def __call__(self, items: list[Item]) -> dict[str, torch.Tensor]:
        """Pad and stack."""
        longest = self.length_of(items)
        ids = np.full((len(items), longest), self.pad_id, np.int64)
        mask = np.zeros((len(items), longest), np.int64)
        for row, item in enumerate(items):
            length = len(item["input_ids"])
            place = slice(longest - length, longest) if self.left else slice(0, length)
            ids[row, place] = item["input_ids"]
            mask[row, place] = 1
        labels = torch.tensor([item["labels"] for item in items], dtype=torch.long)
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask), "labels": labels}


class OneEnd(Padding):
    """Collator for heads that read the state at a row's last end-of-text token (BART's, T5's).

    These heads need the same number of such tokens in every row. One that occurs in the text, as ``</s>``, is replaced
    by the unknown token.
    """

    def __init__(self, collate: Padding, tokenizer: Any) -> None:
        self.collate = collate
        self.end = tokenizer.eos_token_id
        others = (tokenizer.unk_token_id, tokenizer.pad_token_id)
        self.instead = next((token for token in others if token not in (None, self.end)), None)

    def within(self, lengths: tuple[int, ...]) -> Self:
        """The same with batches of these lengths."""
        made = copy.copy(self)
        made.collate = self.collate.within(lengths)
        return made

    def __call__(self, items: list[Item]) -> dict[str, torch.Tensor]:
        """The batch, with one end in each row."""
        batch = self.collate(items)
        ids = batch["input_ids"]
        ends = (ids == self.end) & (batch["attention_mask"] == 1)
        inner = ends & (ends.flip(1).cumsum(1).flip(1) > 1)
        if self.instead is not None:
            batch["input_ids"] = ids.masked_fill(inner, self.instead)
        return batch
