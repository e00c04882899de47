"""Trainer's loop in one of several processes: each reads its rows of a step, and a step's loss is that of all rows."""

from collections import deque
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer

from lmft_job.training.loop import TrainingLoop
from lmft_job.training.random_state import collect_states
from lmft_job.training.rank_rows import IDLE, RankBatches, rank_loader


class RankedTrainer(Trainer):
    """Mixed in below :class:`RecipeTrainer` where the rows of a step are divided by us."""

    run: TrainingLoop
    batches: RankBatches
    _idle: deque[bool]
    _in_step = False

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Loads this process's batches; accelerate would divide rows by itself, and repeat some."""
        job = self.run.job
        self.batches = RankBatches(len(job.train_rows), self.args.seed, job.batch, job.group.world)
        self._idle = deque()
        return rank_loader(job.train_rows, self.batches, job.collate, pinned=self.args.dataloader_pin_memory)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """Trainer's own; the targets of a step are those of all processes."""
        self._in_step = True
        samples, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._in_step = False
        self._idle.extend(batch.pop(IDLE, None) is not None for batch in samples)
        return samples, items

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        # An evaluation's batch is this process's own.
        self.args.average_tokens_across_devices = self._in_step
        if self._in_step:
            self.run.stragglers.pace.waits()
        items = super()._get_num_items_in_batch(batch_samples, device)
        self.args.average_tokens_across_devices = True
        self.run.stragglers.pace.met()
        return items

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        """Trainer's own; in the backward pass after it the ranks wait for each other."""
        loss = super().compute_loss(model, inputs, *args, **options)
        self.run.stragglers.pace.waits()
        return loss

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Trainer's own; a pass without rows counts no tokens."""
        self.run.idle = self._idle.popleft()
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.run.stragglers.pace.met()
        return loss

    def _wrap_model(self, model: Any, training: bool = True, dataloader: Any = None) -> Any:
        wrapped = super()._wrap_model(model, training, dataloader)
        handler = getattr(self.accelerator, "ddp_handler", None)
        if handler is not None:
            handler.gradient_as_bucket_view = True
        return wrapped

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        collect_states(Path(output_dir), self.run.job.group)
