"""Few lengths for batches of padded rows, so that layers are compiled for few shapes.

A batch is padded to the smallest of these lengths that holds its longest row. They are chosen before training, from
the lengths of all rows, so that as little padding as possible is added over that to the longest row of each batch.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from lmft_job.data.prepared import Prepared
from lmft_job.data.rows import Ids, Padding, Rows

MOST_LENGTHS = 8
LITTLE_PADDING = 0.05
"""Share of added tokens for which no further length is compiled. Chosen, not measured."""
MOST_PADDING = 0.15
"""Share of tokens that lengths may add. Chosen: compiled layers and attention without masks gained several times as
much where they were measured (docs/figures.md)."""
_GRAIN = 8
"""Lengths are multiples of it, but for a model's limit: with others, a GPU's kernels copy masks into padded rows."""
_MOST_TRIED = 512


@dataclass(frozen=True)
class Buckets:
    """Lengths of batches.

    Attributes:
        lengths: ascending; the last one holds the longest row.
        padding: tokens expected to be added to batches padded to their longest row, as a share of theirs.
    """

    lengths: tuple[int, ...]
    padding: float


@dataclass(frozen=True)
class PaddedRows:
    """Rows of one text each, which are padded to others of their batch.

    Attributes:
        rows: to train on.
        trained: tokens of each of them.
        held_out: tokens of each held-out row.
        collate: pads them.
        limit: tokens that fit into the model; None for no limit.
        batch: rows in a pass.
    """

    rows: Rows
    trained: Ids
    held_out: Ids
    collate: Padding
    limit: int | None
    batch: int

    @classmethod
    def of(cls, data: Prepared, limit: int | None, batch: int) -> Self | None:
        """Those of prepared data; None where all rows have one length, or texts share rows."""
        trained, held_out = data.train.padded_lengths(), data.held_out.padded_lengths()
        if trained is None or held_out is None or not isinstance(data.collator, Padding):
            return None
        return cls(data.train, trained, held_out, data.collator, limit, batch)

    @property
    def longest(self) -> int:
        """The longest length of a batch."""
        longest = int(max(self.trained.max(), self.held_out.max()))
        whole = -(-longest // _GRAIN) * _GRAIN
        return whole if self.limit is None else max(longest, min(whole, self.limit))

    def trial(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Two rows of different lengths, padded to the longer of them, and to the longest length of all."""
        order = np.argsort(self.trained, kind="stable")
        items = [self.rows[int(order[place])] for place in (0, len(order) // 2)]
        return self.collate(items), self.collate.within((self.longest,))(items)

    def buckets(self, most: int) -> Buckets | None:
        """See :func:`choose_buckets`."""
        return choose_buckets(self.trained, self.longest, self.batch, most=min(most, MOST_LENGTHS))


def choose_buckets(trained: Ids, longest: int, batch: int, *, most: int) -> Buckets | None:
    """The fewest lengths that add at most :data:`LITTLE_PADDING`, or else the best ``most`` of them.

    None where these still add more than :data:`MOST_PADDING`.

    Rows of a batch are taken as drawn independently: its longest is at most n with the probability F(n)^batch, where
    F(n) is the share of rows of at most n tokens. For each number of lengths the best are found exactly, by dynamic
    programming over the last length.

    Args:
        trained: tokens of each row, 1-D.
        longest: the last length, which holds held-out rows too.
        batch: rows in a pass.
        most: number of lengths.
    """
    reached = (np.bincount(trained, minlength=longest + 1).cumsum() / len(trained)) ** batch
    plain = float((np.arange(longest + 1) * np.diff(reached, prepend=0.0)).sum())
    step = _GRAIN * -(-longest // (_GRAIN * _MOST_TRIED))
    tried = np.append(np.arange(step, longest, step), longest)
    below = reached[tried]
    # tokens[n]: expected in a row of the batches that end at or before the n-th length, if that is the last of them
    tokens = tried * below
    before: list[Ids] = []
    most = min(most, len(tried))
    for count in range(1, most + 1):
        if count > 1:
            options = tokens[:, None] + tried[None, :] * (below[None, :] - below[:, None])
            options[np.tril_indices(len(tried))] = np.inf
            before.append(options.argmin(0))
            tokens = options.min(0)
        padding = float(tokens[-1]) / plain - 1
        if padding <= (MOST_PADDING if count == most else LITTLE_PADDING):
            return Buckets(_lengths(tried, before), padding)
    return None


def _lengths(tried: Ids, before: list[Ids]) -> tuple[int, ...]:
    """The lengths that lead to the last one."""
    numbers = [len(tried) - 1]
    for predecessors in reversed(before):
        numbers.insert(0, int(predecessors[numbers[0]]))
    return tuple(int(tried[number]) for number in numbers)
