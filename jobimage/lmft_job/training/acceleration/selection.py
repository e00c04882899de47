"""Selects what makes a step faster on a GPU with unchanged figures; what may not suit a model is tried on it first.

On a CPU most of it is off: arithmetic dominates there, and figures of packed blocks (the tutorials') stay
bit-identical. Of conversations, only the logits of trained tokens are made.
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
from lmft_job.data.isolated.boundaries import PadBounded
from lmft_job.data.isolated.collate import PadShared
from lmft_job.data.rows import Padding, filled
from lmft_job.evaluation.held_out import Collate
from lmft_job.models.config import text_part
from lmft_job.models.device import Arithmetic
from lmft_job.sharding.divide import is_divided, plain_class
from lmft_job.training.acceleration.activation_checkpointing import activation_checkpointing, described
from lmft_job.training.acceleration.aligned_head import admits_aligned_head, aligned_head
from lmft_job.training.acceleration.buckets import PaddedRows
from lmft_job.training.acceleration.fused_loss import admits_fused_loss, fused_evaluation, fused_loss
from lmft_job.training.acceleration.packed_attention import (
    NAME,
    PADDED,
    admits_packed_attention,
    packed_attention,
    padded_attention,
)
from lmft_job.training.acceleration.varlen_attention import NAME as VARLEN
from lmft_job.training.acceleration.varlen_attention import admits_varlen_attention, varlen_attention
from lmft_job.training.batch import NO_CHECKPOINTING, Checkpointing

COMPILING_PAYS_STEPS = 500
"""Planned steps from which compiling is assumed to pay, for each length of rows. Chosen, not measured: its duration
depends on the model."""

MOST_GRAPHS = 256
"""Graphs of one function that torch keeps (its ``accumulated_recompile_limit``); what needs a further one stays
uncompiled."""

_LARGE_SHARE = 0.25
BACKEND: Any = "inductor"
"""Which makes kernels of graphs (``torch.compile``)."""


def on_gpu(arithmetic: Arithmetic) -> bool:
    """Whether steps are computed by a device that has kernels to choose from."""
    return arithmetic.device.type == "cuda"


@dataclass(frozen=True)
class Acceleration:
    """Accelerations of a run.

    Attributes:
        packed: rows need no mask (:mod:`lmft_job.training.acceleration.packed_attention`).
        padded: rows need the mask of their padding, which is made without asking whether it hides anything.
        aligned: the head computes with a width that suits matrix units
            (:mod:`lmft_job.training.acceleration.aligned_head`).
        fused: losses are computed without logits (:mod:`lmft_job.training.acceleration.fused_loss`).
        compiled: the model's layers are compiled in place, names of weights do not change, and so is the loss over its
            logits.
        checkpointing: layers that keep only their input for the backward pass
            (:mod:`lmft_job.training.acceleration.activation_checkpointing`); on a CPU too.
        lengths: of batches of padded rows, for compiled layers (:mod:`lmft_job.training.acceleration.buckets`).
        of_targets: logits are made of the positions that have a target alone
            (:mod:`lmft_job.training.acceleration.fused_loss`); on a CPU.
        varlen: rows that several texts share need no mask (:mod:`lmft_job.training.acceleration.varlen_attention`).
        width: tokens of a row, where rows are padded to one length for compiled layers.
    """

    packed: bool = False
    aligned: bool = False
    fused: bool = False
    compiled: bool = False
    checkpointing: Checkpointing = NO_CHECKPOINTING
    padded: bool = False
    lengths: tuple[int, ...] = ()
    of_targets: bool = False
    varlen: bool = False
    width: int = 0

    def described(self, model: Any, arithmetic: Arithmetic) -> list[str]:
        """For the report, such as ``["attention packed", "layers compiled"]``."""
        if not on_gpu(arithmetic):
            logits = ["logits of trained tokens alone"] if self.of_targets else []
            return [*logits, *described(model, self.checkpointing)]
        own = getattr(model.config, "_attn_implementation", None) or "the model's own"
        attention = NAME if self.packed else PADDED if self.padded else VARLEN if self.varlen else own
        compiled = "layers compiled" + (f" for {len(self.lengths)} lengths of rows" if self.lengths else "")
        if self.compiled and stopped_compiling():
            compiled += ", in part: they had more shapes than torch compiles"
        parts = {
            compiled: self.compiled,
            "aligned logits": self.aligned,
            "loss without logits": self.fused,
        }
        used = [part for part, used in parts.items() if used]
        return [f"attention {attention}", *used, *described(model, self.checkpointing)]

    def collate(self, plain: Collate, rows: int) -> Collate:
        """Makes a batch of rows: with what its attention takes in a mask's place; of ``rows`` for compiled layers."""
        if self.varlen and isinstance(plain, PadShared):
            return PadBounded(plain, rows=rows if self.compiled else 0, width=self.width)
        if self.lengths and isinstance(plain, Padding):
            plain = plain.within(self.lengths)
        if not self.packed and not self.compiled:
            return plain

        def made(items: list[Any]) -> dict[str, torch.Tensor]:
            batch = plain(items)
            if self.packed and "attention_mask" not in batch:
                batch = {**batch, "attention_mask": torch.ones_like(batch["input_ids"])}
            return filled(batch, rows) if self.compiled else batch

        return made

    @contextmanager
    def evaluating(self, model: Any) -> Iterator[None]:
        """Context for forward passes over held-out rows."""
        with self._passing(model), ExitStack() as used:
            if self.fused or self.of_targets:
                used.enter_context(fused_evaluation(model, of_targets=self.of_targets))
            yield

    @contextmanager
    def _passing(self, model: Any) -> Iterator[None]:
        with ExitStack() as used:
            if self.packed or self.padded:
                used.enter_context(packed_attention(model, NAME if self.packed else PADDED))
            if self.varlen:
                used.enter_context(varlen_attention(model))
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
            fused_loss(model, of_targets=self.of_targets) if self.fused or self.of_targets else ExitStack(),
            activation_checkpointing(model, self.checkpointing),
        ):
            yield

    @contextmanager
    def generating(self) -> Iterator[None]:
        """Context for generation, whose shapes change with every token: compiled layers run uncompiled."""
        with torch.compiler.set_stance("force_eager") if self.compiled else ExitStack():
            yield


PLAIN = Acceleration()
"""No acceleration."""


def choose_acceleration(
    model: Any,
    task: Task,
    arithmetic: Arithmetic,
    *,
    block_size: int | None,
    shared: int | None = None,
    padded: PaddedRows | None = None,
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
        shared: most tokens of a row, where several texts share rows without seeing each other.
        padded: the rows, if each is one text that is padded.
        tokens: most tokens in a forward pass; 0 if they are not bounded.
        steps: planned optimiser steps.
        wanted: ``spec.training.compile``.
        own_loss: whether the user's trainer class computes the loss, from logits.
        checkpointing: as the run's memory needs it.
    """
    kind = tasks.of(task)
    # What reads the head's weights does without those that come and go, where they are divided.
    language = not kind.has_labels and not own_loss and not is_divided(model)
    if not on_gpu(arithmetic):
        # Every token of a block is a target; of conversations, some are.
        some = kind.causal and language and block_size is None
        of_targets = some and admits_fused_loss(model, arithmetic, of_targets=True)
        return Acceleration(checkpointing=checkpointing, of_targets=of_targets)
    packed = block_size is not None and shared is None and admits_packed_attention(model, block_size, arithmetic)
    masked = False
    if padded is not None:  # packs too, if each is one conversation
        attention = padded_attention(model, *padded.trial(), padded.longest, arithmetic)
        packed, masked, shared = attention == NAME, attention == PADDED, None
    # A user's loss may pass on what it knows of a batch, which is not where texts begin.
    varlen = shared is not None and not own_loss and admits_varlen_attention(model, shared, arithmetic)
    aligned = language and arithmetic.autocast is not None and admits_aligned_head(model)
    fused = (
        kind.causal and language
        and _are_large(model, tokens, arithmetic) and admits_fused_loss(model, arithmetic)
    )  # fmt: skip
    # A layer's copies to the host's memory would be cut out of its graph.
    may_compile = wanted == Compile.AUTO and not checkpointing.offload and can_compile()
    lengths: tuple[int, ...] = ()
    # A user's loss of labels may not know rows without one, which fill the last batch.
    if may_compile and padded is not None and (packed or masked) and not (own_loss and kind.has_labels):
        most = min(steps // COMPILING_PAYS_STEPS, MOST_GRAPHS // graphs_of_a_length(model, checkpointing))
        buckets = padded.buckets(most)
        lengths = () if buckets is None else buckets.lengths
    one_length = (block_size is not None or varlen) and steps >= COMPILING_PAYS_STEPS
    compiled = may_compile and (one_length or bool(lengths)) and compile_layers(model)
    return Acceleration(
        packed, aligned and not fused, fused, compiled, checkpointing, masked, lengths if compiled else (),
        varlen=varlen, width=shared or 0 if compiled and varlen else 0,
    )  # fmt: skip


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


def stopped_compiling() -> bool:
    """Whether torch's compiler has left passes uncompiled, since they were of more shapes than it keeps graphs for."""
    from torch._dynamo.utils import counters

    return any("limit exceeded" in what for what in counters["unimplemented"])


def graphs_of_a_length(model: Any, checkpointing: Checkpointing) -> int:
    """Upper bound of the graphs that compiled layers of a model need for one shape of its input.

    One for evaluations and two for training, since the first layer's input has no gradient behind frozen embeddings;
    for each kind of layer; and as much again for layers with activation checkpointing beside others.
    """
    layers = _layers(model)
    built = {
        (plain_class(layer), *((name, weight.shape) for name, weight in layer.named_parameters())) for layer in layers
    }
    kinds = len(set(getattr(text_part(model.config), "layer_types", None) or [None]))
    partly = 0 < checkpointing.layers < len(layers)
    return max(1, 3 * len(built) * kinds * (2 if partly else 1))


def _layers(model: Any) -> list[Any]:
    names = set(getattr(model, "_no_split_modules", None) or ())
    return [module for module in model.modules() if plain_class(module).__name__ in names]


def compile_layers(model: Any) -> bool:
    """Compile each layer in place; all share one graph. False if the model does not name its layers.

    Weights that are divided among ranks are gathered and dropped outside of the graphs.

    The layers are those in transformers' ``_no_split_modules``, which it sets for every model that can be split
    across devices. Whole models are not compiled: their attention would get a dense mask, and no flash kernel.
    """
    import torch._dynamo.config as limits

    limits.recompile_limit = MOST_GRAPHS  # a few lengths pass torch's own, after which nothing more is compiled
    layers = _layers(model)
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
