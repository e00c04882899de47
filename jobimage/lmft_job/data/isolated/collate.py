"""Batches of rows that several texts share: positions begin again with every text, so that none sees another."""

import numpy as np
import torch

from lmft_job.data.rows import Ids, Item, Padding
from lmft_job.tasks.base import IGNORED


def starts_of(lengths: Ids) -> Ids:
    """Where the texts of a row begin, from their lengths."""
    return np.cumsum(lengths) - lengths


class PadShared(Padding):
    """Collator of rows with ``lengths`` of their texts: rows are padded after their end to the longest of the batch.

    Where every row of a batch is one text, the padding is masked. Other batches have positions instead, which begin
    again with every text and with every padding token: transformers then lets no text see another.
    """

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, items: list[Item]) -> dict[str, torch.Tensor]:
        """Pad and stack."""
        batch = self.stacked(items)
        shared = any(len(item["lengths"]) > 1 for item in items)
        del batch["attention_mask" if shared else "position_ids"]
        return batch

    def stacked(self, items: list[Item], rows: int = 0, width: int = 0) -> dict[str, torch.Tensor]:
        """All rows, with their mask and their positions, both 0 in padding; int64 of (rows, width).

        Args:
            items: the rows.
            rows: least number of rows; further ones are padding.
            width: least number of tokens in a row.
        """
        shape = (max(rows, len(items)), max(width, self.length_of(items)))
        ids, labels = np.full(shape, self.pad_id, np.int64), np.full(shape, IGNORED, np.int64)
        mask, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, item in enumerate(items):
            length, lengths = len(item["input_ids"]), item["lengths"]
            ids[row, :length], labels[row, :length], mask[row, :length] = item["input_ids"], item["labels"], 1
            positions[row, :length] = np.arange(length) - np.repeat(starts_of(lengths), lengths)
        columns = {"input_ids": ids, "labels": labels, "attention_mask": mask, "position_ids": positions}
        return {name: torch.from_numpy(values) for name, values in columns.items()}


def real_tokens(position_ids: torch.Tensor) -> torch.Tensor:
    """Tokens of a batch of packs that are not padding: those after a conversation's first, and one first for each.

    A conversation has at least two tokens, hence one at position 1; padding is at position 0.
    """
    return (position_ids > 0).sum() + (position_ids == 1).sum()
