"""Activation checkpointing: layers that keep only their input, and compute the rest again in the backward pass.

As many layers as are needed, from the first one on. In the backward pass they come last, when what the other layers
kept is freed already; of evenly spread ones, each would be computed again while the others before it still hold theirs.
Where even that is not enough, the inputs wait in pinned memory of the host; torch copies them without waiting
(:class:`torch.autograd.graph.save_on_cpu`). Random numbers are the same in both computations, so losses, gradients and
what a run ends with do not change by a bit.

Layers are transformers' :class:`GradientCheckpointingLayer`. A model that has none can be checkpointed as a whole only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers.modeling_layers import GradientCheckpointingLayer

from lmft_job.training.batch import Checkpointing


def checkpointable(model: Any) -> int:
    """Number of layers of which any number may be checkpointed; 0 if the model does not support it."""
    return len(_layers(model)) if getattr(model, "supports_gradient_checkpointing", False) else 0


def _layers(model: Any) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


@contextmanager
def activation_checkpointing(model: Any, wanted: Checkpointing, **options: Any) -> Iterator[None]:
    """Within it, passes in training mode checkpoint as many layers.

    Args:
        model: of transformers, with or without an adapter, whole, compiled or divided among ranks.
        wanted: number of layers; where the inputs wait.
        options: for torch's ``checkpoint``.
    """
    if not wanted.layers:
        yield
        return
    kept = {"use_reentrant": False, **options}
    model.activation_checkpointing_enable(activation_checkpointing_kwargs=kept, offload=wanted.offload)
    for number, layer in enumerate(_layers(model)):
        layer.gradient_checkpointing = number < wanted.layers
    try:
        yield
    finally:
        model.activation_checkpointing_disable()
        model.disable_input_require_grads()


def described(model: Any, wanted: Checkpointing) -> list[str]:
    """For the report, such as ``["activation checkpointing of 6 of 12 layers"]``."""
    count = len(_layers(model))
    if not wanted.layers:
        return []
    number = f" of {min(wanted.layers, count)} of {count} layers" if count else ""
    return [f"activation checkpointing{number}{', inputs in host memory' if wanted.offload else ''}"]
