"""Where the model's weights are held: whole in every process, or divided among them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lmft_job.adapters.attach import has_adapter, trained
from lmft_job.attempt.context import RunContext
from lmft_job.models.device import Arithmetic
from lmft_job.models.padding_row import hold_divided
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


def place(context: RunContext, model: Any, arithmetic: Arithmetic, whole: Callable[[], Any]) -> Placed:
    """Divide a model among the processes, if it is to be, or move it to this one's device; rank 0 decides.

    Args:
        context: of the attempt.
        model: see :func:`load_model`.
        arithmetic: device and precision.
        whole: makes the model on its device, where it is without memory and is not divided.

    Raises:
        InvalidError: it cannot be divided.
    """
    world, settings = context.world, context.settings
    device = device_of(context)
    memory = None if device is None else device.memory
    if not may_divide(settings, world, memory):
        return Placed(model)
    chosen = Division(context.group.from_main(lambda: choose(settings, weights_of(model), world, memory).value))
    if chosen == Division.NONE:
        return Placed(whole() if is_hollow(model) else model.to(arithmetic.device))
    within, adapter = chosen == Division.NODES, has_adapter(model)
    blank = outline(model)
    divide(model, world, arithmetic.device, within_nodes=within, kept=trained(model) if adapter else ())
    share = share_of(world, within_nodes=within)
    hold_divided(model, share.rows)
    context.observer.note(f"the model's weights are divided among the ranks ({chosen})")
    return Placed(model, WHOLE if adapter else share, blank)


def is_hollow(model: Any) -> bool:
    """Whether a model is without memory."""
    return any(weight.is_meta for weight in model.parameters())


def weights_of(model: Any) -> Weights:
    """How many weights a model has, and of which size the frozen ones are."""
    learned = sum(weight.numel() for weight in trained(model))
    frozen = [weight for weight in model.parameters() if not weight.requires_grad]
    size = max((weight.element_size() for weight in frozen), default=4)
    return Weights(learned, sum(weight.numel() for weight in frozen) if has_adapter(model) else 0, size)
