"""A training step as Trainer does it: forward, backward, clipping, the optimiser; then an evaluation's forward pass."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from accelerate.utils import convert_outputs_to_fp32
from torch.overrides import TorchFunctionMode
from transformers import masking_utils

from lmft_api.spec import Optimizer, Precision
from lmft_job import tasks
from lmft_job.adapters.attach import trained
from lmft_job.memory.parts import Moments
from lmft_job.memory.plan import Plan
from lmft_job.memory.trial.hollow import Rules
from lmft_job.memory.trial.models import autocast_dtype
from lmft_job.memory.trial.tracking import LiveBytes
from lmft_job.models.config import text_part
from lmft_job.training.acceleration.activation_checkpointing import activation_checkpointing
from lmft_job.training.acceleration.fused_loss import fused_evaluation, fused_loss

_IN_FP32 = frozenset({torch.pow, torch.Tensor.pow, torch.Tensor.__pow__, F.layer_norm, F.softmax, F.log_softmax})
"""What CUDA's autocast computes in FP32 and a CPU's does not, of what models call between matrix products."""


class _GpuKernels(TorchFunctionMode):
    """Kernels as GPUs have them.

    Attention has no scores in memory, with dropout too: it keeps what a CPU's flash kernel keeps. Autocast computes
    more in FP32 (torch's "CUDA Ops that can autocast to float32").
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace a function of torch."""
        if func is F.scaled_dot_product_attention:
            return _attend(*args, **(kwargs or {}))
        if func in _IN_FP32 and torch.is_autocast_enabled("cpu"):
            args = tuple(
                one.float() if isinstance(one, torch.Tensor) and one.is_floating_point() else one for one in args
            )
        return func(*args, **(kwargs or {}))


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> torch.Tensor:  # fmt: skip
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (one.to(torch.get_autocast_dtype("cpu")) for one in (query, key, value))
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype)
    attended: torch.Tensor = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, is_causal, attn_mask=attn_mask, scale=scale
    )[0]
    return attended


@contextmanager
def _kernels(plan: Plan) -> Iterator[None]:
    if not plan.on_gpu:
        yield
        return
    with _GpuKernels():
        yield


@contextmanager
def _one_text_a_row() -> Iterator[None]:
    """Transformers looks whether positions begin again within a row; for fake tensors it assumes so, with a mask."""
    before = masking_utils.find_packed_sequence_indices
    masking_utils.find_packed_sequence_indices = lambda position_ids: None
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = before


def _on_a_device(model: Any) -> None:
    """Replace a model's tensors by new ones on a device; they are those of the mode that is entered."""
    moved: dict[int, torch.Tensor] = {}

    def move(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in moved:
            there = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="cpu")
            kept = isinstance(tensor, torch.nn.Parameter)
            moved[id(tensor)] = torch.nn.Parameter(there, tensor.requires_grad) if kept else there
        return moved[id(tensor)]

    for module in model.modules():
        for tensors in (module._parameters, module._buffers, module.__dict__):
            found = {name: value for name, value in tensors.items() if isinstance(value, torch.Tensor)}
            tensors.update({name: move(value) for name, value in found.items()})


def step(model: Any, rules: Rules, plan: Plan, beginning: int) -> Moments:
    """The moments of a step; the first of them ends when ``beginning`` weights have their gradient.

    Args:
        model: on the meta device, or left by an earlier trial; its tensors are replaced.
        rules: what operations give.
        plan: what the device does.
        beginning: number of weights.
    """
    vocabulary = 0 if tasks.of(plan.task).has_labels else int(text_part(model.config).vocab_size)
    in_use = LiveBytes(rules, vocabulary, plan.batch.rows * plan.length)
    # The first backward pass of a process starts a thread for each GPU, and within a mode even where there is none:
    # a process that is forked after that could not train.
    torch.zeros((), requires_grad=True).backward()  # type: ignore[no-untyped-call]
    with in_use, _kernels(plan), _one_text_a_row(), torch.random.fork_rng(devices=[]), _checkpointing(model, plan):
        _on_a_device(model)
        learning = trained(model)
        in_use.assign([*model.parameters(), *model.buffers()], "weights")
        if plan.adapter is not None:
            in_use.assign(learning, "adapter")
        optimizer = _optimizer(plan, learning)
        _give_states(optimizer, learning, in_use)
        forward, backward = _train(model, plan, learning, optimizer, in_use, beginning)
        evaluation = _evaluate(model, plan, in_use)
    return Moments(forward, backward, evaluation)


@contextmanager
def _checkpointing(model: Any, plan: Plan) -> Iterator[None]:
    # A backward pass leaves the mode that replaces kernels; what it computes again enters it.
    again = {"context_fn": lambda: (nullcontext(), _kernels(plan))}
    wanted = plan.checkpointing
    with activation_checkpointing(model, replace(wanted, offload=False), **again):
        if wanted.offload and wanted.layers:
            for module in model.modules():
                if hasattr(module, "_gradient_checkpointing_func"):
                    module._gradient_checkpointing_func = _on_the_host(module._gradient_checkpointing_func)
        yield


def _on_the_host(checkpointed: Any) -> Any:
    """A layer's checkpointed pass whose inputs are not in the device's memory until the backward pass wants them."""

    def leave(tensor: torch.Tensor) -> tuple[torch.Size, torch.dtype]:
        return tensor.shape, tensor.dtype

    def fetch(left: tuple[torch.Size, torch.dtype]) -> torch.Tensor:
        return torch.empty(left[0], dtype=left[1])

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch.autograd.graph.saved_tensors_hooks(leave, fetch):
            return checkpointed(*args, **kwargs)

    return run


def _optimizer(plan: Plan, learning: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The one that Trainer takes."""
    if plan.optimizer == Optimizer.ADAFACTOR:
        return transformers.Adafactor(  # type: ignore[no-untyped-call]
            learning, lr=1e-3, scale_parameter=False, relative_step=False
        )
    if plan.optimizer == Optimizer.SGD:
        return torch.optim.SGD(learning, lr=1e-3, weight_decay=plan.weight_decay, foreach=plan.on_gpu)
    return torch.optim.AdamW(learning, lr=1e-3, weight_decay=plan.weight_decay, fused=True)


def _give_states(optimizer: torch.optim.Optimizer, learning: list[torch.nn.Parameter], in_use: LiveBytes) -> None:
    """A first step, so that the states exist, as in every later one."""
    for weight in learning:
        weight.grad = torch.empty_like(weight)
    optimizer.step()
    optimizer.zero_grad()
    states = (value for state in optimizer.state.values() for value in state.values())
    in_use.assign((value for value in states if isinstance(value, torch.Tensor)), "optimiser")
    in_use.take_peak()


def _train(
    model: Any,
    plan: Plan,
    learning: list[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    in_use: LiveBytes,
    beginning: int,
) -> Any:
    """The last micro-batch of a step: those before it have left their gradients."""
    model.train()
    found, done = [], 0

    def ready(weight: torch.nn.Parameter) -> None:
        nonlocal done
        in_use.assign([weight.grad] if weight.grad is not None else [], "gradients")
        done += 1
        if done == beginning:
            found.append(in_use.take_peak())

    for weight in learning:
        weight.register_post_accumulate_grad_hook(ready)  # type: ignore[no-untyped-call]
    if plan.batch.accumulation > 1:
        for weight in learning:
            weight.grad = torch.empty_like(weight)
            in_use.assign([weight.grad], "gradients")
    batch = _batch(model, plan)
    with fused_loss(model) if plan.fused_loss else _kernels(plan):
        loss = _forward(model, batch, plan).loss
    del batch
    loss.backward()
    torch.nn.utils.clip_grad_norm_(learning, 1.0)
    optimizer.step()
    found.append(in_use.take_peak())
    optimizer.zero_grad()
    in_use.take_peak()
    return found[0], found[-1]


def _forward(model: Any, batch: dict[str, torch.Tensor], plan: Plan) -> Any:
    """With mixed precision the outputs are converted to FP32, as accelerate does."""
    if plan.precision == Precision.FP32:
        return model(**batch)
    with _autocast(plan):
        outputs = model(**batch)
    return convert_outputs_to_fp32(lambda: outputs)()


def _autocast(plan: Plan) -> torch.autocast:
    return torch.autocast("cpu", autocast_dtype(plan), enabled=plan.precision != Precision.FP32)


def _evaluate(model: Any, plan: Plan, in_use: LiveBytes) -> Any:
    model.eval()
    with torch.no_grad():
        batch = _batch(model, plan)
        with _autocast(plan), fused_evaluation(model) if plan.fused_loss else nullcontext():
            outputs = model(**batch)
        del outputs, batch
    return in_use.take_peak()


def _batch(model: Any, plan: Plan) -> dict[str, torch.Tensor]:
    shape = (plan.batch.rows, plan.length)
    ids = torch.zeros(shape, dtype=torch.int64)
    if tasks.of(plan.task).has_labels:
        batch = {"input_ids": ids, "labels": torch.zeros(plan.batch.rows, dtype=torch.int64)}
    else:
        batch = {"input_ids": ids, "labels": torch.zeros_like(ids)}
    if plan.masked_padding:
        batch["attention_mask"] = torch.ones_like(ids)
    return batch
