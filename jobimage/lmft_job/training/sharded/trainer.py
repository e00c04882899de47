"""Trainer's loop where the model's weights are divided among processes (FSDP2)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from lmft_job.adapters.attach import trained
from lmft_job.sharding import optimizer as stored_optimizer
from lmft_job.sharding.classes import DTensor
from lmft_job.sharding.divide import average_gradients, share_of_model, trained_weights, trains_divided
from lmft_job.sharding.files import MODEL, has_shards, part_of
from lmft_job.training.loop import TrainingLoop


class DividedTrainer(Trainer):
    """Mixed in below :class:`RecipeTrainer` where the model is divided."""

    run: TrainingLoop

    @contextmanager
    def _defer_fsdp_gradient_reduction(self) -> Iterator[None]:
        # Gradients are summed after every pass: until then each process would hold those of the whole model.
        yield

    def _sync_replicated_trainable_parameters(self, model: Any) -> None:
        """Nothing: an adapter's weights are equal already, and its gradients are averaged in one exchange."""

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Trainer's own; the gradients of what every process holds whole are averaged at the last pass of a step."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            whole = [weight for weight in trained(self.model) if not isinstance(weight, DTensor)]
            average_gradients(whole, self.run.job.group.world)
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[no-untyped-call]
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not trains_divided(self.model):
            super()._save_optimizer_and_scheduler(output_dir)
            return
        folder, share, optimizer = Path(output_dir), share_of_model(self.model), _plain(self.optimizer)
        folder.mkdir(parents=True, exist_ok=True)
        if share.writes:
            weights = {f"{MODEL}{name}": weight for name, weight in trained_weights(self.model).items()}
            part = part_of(weights | stored_optimizer.tensors_of(self.model, optimizer), share)
            self.run.writer.write(part.rows, part.write, folder)
        if self.args.should_save:
            torch.save(stored_optimizer.groups_of(optimizer), folder / stored_optimizer.GROUPS)
            scheduler: Any = self.lr_scheduler
            torch.save(scheduler.state_dict(), folder / "scheduler.pt")


def load_optimizer(trainer: Trainer, checkpoint: Path) -> bool:
    """Give a trainer the state of optimizer and scheduler, if checkpoint or model are divided; else False.

    Raises:
        UnfitShardsError: it is of another model.
    """
    optimizer = _plain(trainer.optimizer)
    if has_shards(checkpoint):
        stored_optimizer.load_parts(trainer.model, optimizer, checkpoint)
    elif trains_divided(trainer.model):
        state = torch.load(checkpoint / "optimizer.pt", map_location="cpu", weights_only=True, mmap=True)
        stored_optimizer.load_whole(trainer.model, optimizer, state)
    else:
        return False
    scheduler: Any = trainer.lr_scheduler
    scheduler.load_state_dict(torch.load(checkpoint / "scheduler.pt", weights_only=True))
    return True


def _plain(optimizer: Any) -> torch.optim.Optimizer:
    """torch's optimizer within accelerate's."""
    found: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return found
