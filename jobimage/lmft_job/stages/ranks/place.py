"""Where the model's weights are held: whole in every process, or divided among them."""

from dataclasses import dataclass
from typing import Any

import torch

from lmft_job.adapters.attach import has_adapter, trained
from lmft_job.attempt.context import RunContext
from lmft_job.models.device import Arithmetic
from lmft_job.sharding.choose import Division, Weights, choose, may_divide
from lmft_job.sharding.divide import divide, outline
from lmft_job.sharding.share import WHOLE, Share, share_of
from lmft_job.stages.fit.memory import device_of


@dataclass(frozen=True)
class Placed:
    """A model in its place.

    Attributes:
        model: on its device.
        share: which part of the trained weights is stored by this process.
        blank: outline of a divided model, to put it together again; None where it is whole.
    """

    model: Any
    share: Share = WHOLE
    blank: Any = None


def begins_on(context: RunContext, arithmetic: Arithmetic) -> torch.device:
    """Where a model is built: on the CPU if it may not fit on the device whole."""
    return torch.device("cpu") if may_divide(context.settings, context.world) else arithmetic.device


def place(context: RunContext, model: Any, arithmetic: Arithmetic) -> Placed:
    """Divide a model among the processes, if it is to be, or move it to this one's device; rank 0 decides.

    Raises:
        InvalidError: it cannot be divided.
    """
    world, settings = context.world, context.settings
    if not may_divide(settings, world):
        return Placed(model)
    device = device_of(context)
    memory = None if device is None else device.memory
    chosen = Division(context.group.from_main(lambda: choose(settings, weights_of(model), world, memory).value))
    if chosen == Division.NONE:
        return Placed(model.to(arithmetic.device))
    within, adapter = chosen == Division.NODES, has_adapter(model)
    blank = outline(model)
    divide(model, world, arithmetic.device, within_nodes=within, kept=trained(model) if adapter else ())
    context.observer.note(f"the model's weights are divided among the ranks ({chosen})")
    return Placed(model, WHOLE if adapter else share_of(world, within_nodes=within), blank)


def weights_of(model: Any) -> Weights:
    """How many weights a model has, and of which size the frozen ones are."""
    learned = sum(weight.numel() for weight in trained(model))
    frozen = [weight for weight in model.parameters() if not weight.requires_grad]
    size = max((weight.element_size() for weight in frozen), default=4)
    return Weights(learned, sum(weight.numel() for weight in frozen) if has_adapter(model) else 0, size)
