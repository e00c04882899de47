"""The rows that a process reads of each optimiser step."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from lmft_job.data.rows import EpochSampler, Item, Rows
from lmft_job.distributed.shares import passes_of
from lmft_job.distributed.world import World
from lmft_job.evaluation.held_out import Collate
from lmft_job.tasks.base import IGNORED
from lmft_job.training.batch import Batch

IDLE = "idle"
"""Key of a batch without rows of its own; it has one of another process, that counts for nothing."""


class RankBatches(Sampler[list[int]]):
    """The batches of one process: of every step of the epoch's order its share, in as many passes as all have.

    Indices carry the epoch, as :class:`EpochSampler` yields them. A pass without a row has one of the step's, marked
    by ``-1 - index``.

    Args:
        length: number of rows.
        seed: of the run.
        batch: how a step is divided.
        world: which process this is.
    """

    def __init__(self, length: int, seed: int, batch: Batch, world: World) -> None:
        self._order, self._batch, self._world = EpochSampler(length, seed), batch, world

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration reads."""
        self._order.set_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(self._order) // self._batch.step_rows) * self._batch.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        order, rows = list(self._order), self._batch.step_rows
        for start in range(0, len(order), rows):
            step = order[start : start + rows]
            for part in passes_of(step, self._world, self._batch.accumulation):
                yield list(part) or [-1 - step[0]]


class _Marked(Dataset[tuple[bool, Item]]):
    """Rows, each with whether it counts for nothing."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __getitem__(self, index: int) -> tuple[bool, Item]:
        if index >= 0:
            return False, self._rows[index]
        item = dict(self._rows[-1 - index])
        labels = item["labels"]
        item["labels"] = np.full_like(labels, IGNORED) if isinstance(labels, np.ndarray) else IGNORED
        return True, item


def rank_loader(rows: Rows, batches: RankBatches, collate: Collate, *, pinned: bool) -> DataLoader[Any]:
    """Loads the batches of one process."""

    def collated(items: list[tuple[bool, Item]]) -> dict[str, torch.Tensor]:
        batch = collate([item for _, item in items])
        return {**batch, IDLE: torch.ones(1)} if items[0][0] else batch

    return DataLoader(_Marked(rows), batch_sampler=batches, collate_fn=collated, pin_memory=pinned)
