"""Passes of the same shape where layers are compiled, so that they are compiled once.

A compiler makes another graph for every number of rows. An epoch rarely ends with a whole batch, nor do the held-out
rows; so the last batch is filled with rows that have no target, which neither losses nor figures nor counts contain.
"""

from typing import Any

import torch
from transformers import Trainer

from lmft_job.data.rows import FILLER
from lmft_job.training.loop import TrainingLoop
from lmft_job.training.rank_rows import IDLE


class FilledTrainer(Trainer):
    """Mixed in below :class:`RecipeTrainer` where batches are filled."""

    run: TrainingLoop

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """Trainer's own; rows that fill a batch count no tokens."""
        samples, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        for batch in samples:
            filler = batch.pop(FILLER, None)
            if filler is not None and IDLE not in batch:  # nothing of an idle pass is counted
                rows, mask = len(filler), batch.get("attention_mask")
                counted = rows * batch["input_ids"].shape[1] if mask is None else mask[-rows:].sum()
                self.run.tokens = self.run.tokens - counted
        return samples, items
