"""A Trainer subclass and a callback of one's own, as examples/user-trainer.yaml names them."""

from typing import Any

import torch
from transformers import Trainer, TrainerCallback


class SmoothedLossTrainer(Trainer):
    """Cross-entropy with label smoothing, so that the model is less sure of itself."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean smoothed loss of a batch, and the model's outputs where asked for."""
        labels = inputs["labels"]
        outputs = model(**inputs)
        loss = torch.nn.functional.cross_entropy(outputs.logits, labels, label_smoothing=0.1)
        return (loss, outputs) if return_outputs else loss


class PrintEveryEpoch(TrainerCallback):
    """Says that an epoch is done."""

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by Trainer."""
        print(f"epoch {state.epoch:.0f} done after {state.global_step} steps")
