"""Selects what makes a step faster on a GPU with unchanged figures; what may not suit a model is tried on it first.

On a CPU all of it is off: arithmetic dominates there, and the tutorials' figures stay bit-identical.
"""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from lmft_api.spec import Compile
from lmft_api.tasks import Task
from lmft_job import tasks
from lmft_job.data.rows import filled
from lmft_job.evaluation.held_out import Collate
from lmft_job.models.device import Arithmetic
from lmft_job.sharding.divide import is_divided, plain_class
from lmft_job.training.acceleration.activation_checkpointing import activation_checkpointing, described
from lmft_job.training.acceleration.aligned_head import admits_aligned_head, aligned_head
from lmft_job.training.acceleration.fused_loss import admits_fused_loss, fused_evaluation, fused_loss
from lmft_job.training.acceleration.packed_attention import admits_packed_attention, packed_attention
from lmft_job.training.batch import NO_CHECKPOINTING, Checkpointing

COMPILING_PAYS_STEPS = 500
"""Planned steps from which compiling is assumed to pay. Chosen, not measured: its duration depends on the model."""

_LARGE_SHARE = 0.25
BACKEND: Any = "inductor"
"""Which makes kernels of graphs (``torch.compile``)."""


@dataclass(frozen=True)
class Acceleration:
    """Accelerations of a run.

    Attributes:
        packed: blocks need no mask (:mod:`lmft_job.training.acceleration.packed_attention`).
        aligned: the head computes with a width that suits matrix units
            (:mod:`lmft_job.training.acceleration.aligned_head`).
        fused: losses are computed without logits (:mod:`lmft_job.training.acceleration.fused_loss`).
        compiled: the model's layers are compiled in place, names of weights do not change, and so is the loss over its
            logits.
        checkpointing: layers that keep only their input for the backward pass
            (:mod:`lmft_job.training.acceleration.activation_checkpointing`); on a CPU too.
    """

    packed: bool = False
    aligned: bool = False
    fused: bool = False
    compiled: bool = False
    checkpointing: Checkpointing = NO_CHECKPOINTING

    def described(self, model: Any, arithmetic: Arithmetic) -> list[str]:
        """For the report, such as ``["attention packed", "layers compiled"]``."""
        if arithmetic.device.type != "cuda":
            return described(model, self.checkpointing)
        own = getattr(model.config, "_attn_implementation", None) or "the model's own"
        attention = "packed" if self.packed else own
        parts = {
            "layers compiled": self.compiled,
            "aligned logits": self.aligned,
            "loss without logits": self.fused,
        }
        used = [part for part, used in parts.items() if used]
        return [f"attention {attention}", *used, *described(model, self.checkpointing)]

    def collate(self, plain: Collate, rows: int) -> Collate:
        """Makes a batch of rows: with the mask that packed attention does not read; of ``rows`` for compiled layers."""
        if not self.packed and not self.compiled:
            return plain

        def made(items: list[Any]) -> dict[str, torch.Tensor]:
            batch = plain(items)
            if self.packed:
                batch = {**batch, "attention_mask": torch.ones_like(batch["input_ids"])}
            return filled(batch, rows) if self.compiled else batch

        return made

    @contextmanager
    def evaluating(self, model: Any) -> Iterator[None]:
        """Context for forward passes over held-out rows."""
        with self._passing(model), fused_evaluation(model) if self.fused else ExitStack():
            yield

    @contextmanager
    def _passing(self, model: Any) -> Iterator[None]:
        with ExitStack() as used:
            if self.packed:
                used.enter_context(packed_attention(model))
            if self.aligned:
                used.enter_context(aligned_head(model))
            if self.compiled and not self.fused:
                used.enter_context(compiled_loss(model))
            yield

    @contextmanager
    def training(self, model: Any) -> Iterator[None]:
        """Context for training."""
        with (
            self._passing(model),
            fused_loss(model) if self.fused else ExitStack(),
            activation_checkpointing(model, self.checkpointing),
        ):
            yield

    @contextmanager
    def generating(self) -> Iterator[None]:
        """Context for generation, whose shapes change with every token: compiled layers run uncompiled."""
        with torch.compiler.set_stance("force_eager") if self.compiled else ExitStack():
            yield


PLAIN = Acceleration()
"""No acceleration, as on a CPU."""


def choose_acceleration(
    model: Any,
    task: Task,
    arithmetic: Arithmetic,
    *,
    block_size: int | None,
    isolated: bool = False,
    tokens: int,
    steps: int,
    wanted: Compile,
    own_loss: bool,
    checkpointing: Checkpointing = NO_CHECKPOINTING,
) -> Acceleration:
    """The accelerations for a run on this device.

    Args:
        model: on its device.
        task: only language models have packed blocks.
        arithmetic: device and precision.
        block_size: tokens of a row, if all rows are packed blocks of the same length; None for padded rows.
        isolated: whether documents of a block do not see each other, which takes a mask.
        tokens: most tokens in a forward pass; 0 if they are not bounded.
        steps: planned optimiser steps.
        wanted: ``spec.training.compile``.
        own_loss: whether the user's trainer class computes the loss, from logits.
        checkpointing: as the run's memory needs it.
    """
    if arithmetic.device.type != "cuda":
        return Acceleration(checkpointing=checkpointing)
    packed = block_size is not None and not isolated and admits_packed_attention(model, block_size, arithmetic)
    kind = tasks.of(task)
    # Both read the head's weights, which come and go where they are divided.
    language = not kind.has_labels and not own_loss and not is_divided(model)
    aligned = language and arithmetic.autocast is not None and admits_aligned_head(model)
    fused = (
        kind.causal and language
        and _are_large(model, tokens, arithmetic) and admits_fused_loss(model, arithmetic)
    )  # fmt: skip
    compiled = (
        wanted == Compile.AUTO and block_size is not None and steps >= COMPILING_PAYS_STEPS and can_compile()
        # A layer's copies to the host's memory would be cut out of its graph.
        and not checkpointing.offload and compile_layers(model)
    )  # fmt: skip
    return Acceleration(packed, aligned and not fused, fused, compiled, checkpointing)


def _are_large(model: Any, tokens: int, arithmetic: Arithmetic) -> bool:
    memory = torch.cuda.get_device_properties(arithmetic.device).total_memory
    return logits_are_large(tokens * int(model.get_output_embeddings().weight.shape[0]), memory)


def logits_are_large(count: int, memory: int) -> bool:
    """Whether the logits of a pass, in 16 bits and in FP32, and their gradient, take much of the device's memory.

    Only then is the loss computed without them: its cost in time on a GPU was not measured.
    """
    return 10 * count > _LARGE_SHARE * memory


def can_compile() -> bool:
    """Whether torch's compiler has what it needs to build kernels: Triton, and a C compiler for its launchers."""
    from torch.utils._triton import has_triton

    return bool(has_triton()) and any(shutil.which(name) for name in ("cc", "gcc", "clang"))


def compile_layers(model: Any) -> bool:
    """Compile each layer in place; all share one graph. False if the model does not name its layers.

    Weights that are divided among ranks are gathered and dropped outside of the graphs.

    The layers are those in transformers' ``_no_split_modules``, which it sets for every model that can be split
    across devices. Whole models are not compiled: their attention would get a dense mask, and no flash kernel.
    """
    names = set(getattr(model, "_no_split_modules", None) or ())
    layers = [module for module in model.modules() if plain_class(module).__name__ in names]
    for layer in layers:
        layer.compile(dynamic=False, backend=BACKEND)
    return bool(layers)


@contextmanager
def compiled_loss(model: Any) -> Iterator[None]:
    """Within it, the loss function of a language model is compiled: one pass over the logits instead of six."""
    own = model.__dict__.get("_loss_function")
    if model.get_output_embeddings() is not None and hasattr(model, "loss_function"):
        model.loss_function = torch.compile(model.loss_function, dynamic=False, backend=BACKEND)
    try:
        yield
    finally:
        model.__dict__.pop("_loss_function", None)
        if own is not None:
            model.loss_function = own
