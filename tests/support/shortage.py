"""An accelerator that is short of memory, played: batches above a size do not fit."""

from collections.abc import Callable
from typing import Any


def short_of_memory(largest: int, from_step: int = 2) -> Callable[..., None]:
    """To call in the process that trains: batches of more rows than ``largest`` run out of memory from a step on."""

    def patch(*_: Any) -> None:
        import torch

        from lmft_job.training.trainer import RecipeTrainer

        whole = RecipeTrainer.training_step

        def training_step(self: Any, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
            if self.state.global_step >= from_step and len(inputs["input_ids"]) > largest:
                raise torch.OutOfMemoryError("simulated: out of memory")
            return whole(self, model, inputs, num_items_in_batch)

        RecipeTrainer.training_step = training_step  # type: ignore[method-assign]

    return patch
