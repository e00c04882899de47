"""Batches of rows that several texts share, with the boundaries of the texts for an attention that needs no mask."""

import numpy as np
import torch

from lmft_job.data.isolated.collate import PadShared
from lmft_job.data.rows import FILLER, Ids, Item

BOUNDARIES = "cu_seq_lens_q"
"""Key of the boundaries: transformers passes a keyword of this name on to the attention (``FlashAttentionKwargs``)."""
_FEWEST = 64
"""Least number of texts that boundaries have room for. Chosen: most small batches are of one shape then."""


def boundaries_of(lengths: list[Ids], rows: int, width: int) -> torch.Tensor:
    """Where texts begin in a batch whose rows are laid end to end; int32 of (texts + 1,), on the CPU.

    The padding at a row's end is a text of its own. Then the last boundary is repeated, which makes texts without
    tokens, until there are as many texts as a power of two: compiled layers see few shapes.

    Args:
        lengths: of the texts in each row; further rows are padding.
        rows: rows of the batch.
        width: tokens of a row.
    """
    ends = [np.cumsum(some) + row * width for row, some in enumerate(lengths)]
    found = np.unique(np.concatenate([*ends, np.arange(rows + 1) * width]))
    room = max(_FEWEST, 1 << (len(found) - 2).bit_length())
    return torch.from_numpy(np.pad(found, (0, room + 1 - len(found)), mode="edge").astype(np.int32))


class PadBounded:
    """Collator as :class:`PadShared`, with mask, positions and boundaries in every batch.

    Args:
        pad: pads and stacks the rows.
        rows: rows of every batch, where their number must not change; those that are missing are padding.
        width: tokens of every row, where their number must not change.
    """

    def __init__(self, pad: PadShared, *, rows: int = 0, width: int = 0) -> None:
        self._pad, self._rows, self._width = pad, rows, width

    def __call__(self, items: list[Item]) -> dict[str, torch.Tensor]:
        """Pad and stack."""
        batch = self._pad.stacked(items, self._rows, self._width)
        rows, width = batch["labels"].shape
        batch[BOUNDARIES] = boundaries_of([item["lengths"] for item in items], rows, width)
        return batch if rows == len(items) else batch | {FILLER: torch.ones(rows - len(items))}
