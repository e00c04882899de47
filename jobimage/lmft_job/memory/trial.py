"""A training step on fake tensors, which have shapes and no memory: the same operations, the same lifetimes.

The model is built from its configuration by transformers, and the step does what Trainer's does: forward, backward,
clipping, the optimiser; then an evaluation's forward pass. Layers are alike, so a large model is tried with a few of
them, and with one more.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from accelerate.utils import convert_outputs_to_fp32
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from transformers import masking_utils

from lmft_api.spec import Optimizer, Precision
from lmft_api.spec.resolved import AdapterSettings
from lmft_api.tasks import Task
from lmft_job import tasks
from lmft_job.adapters.attach import Base, attach, narrow_base, trained
from lmft_job.adapters.targets import find_targets
from lmft_job.memory.parts import Moments, extended
from lmft_job.memory.plan import Plan
from lmft_job.memory.quantized import pack
from lmft_job.memory.tracking import LiveBytes
from lmft_job.models.config import text_part
from lmft_job.training.acceleration.fused_loss import fused_evaluation, fused_loss

_FEW = 2
"""Least layers of a trial: the first and the last of them are then different ones."""


class Trials:
    """Trials of one model: whether its layers are alike is found once.

    Args:
        config: of the model, complete: with vocabulary and labels.
    """

    def __init__(self, config: Any) -> None:
        self._config = config
        self._sizes: dict[Task, tuple[int, int] | None] = {}

    def moments(self, plan: Plan) -> Moments:
        """The busiest moments of a step and an evaluation.

        Args:
            plan: what the device does.

        Raises:
            Exception: anything that the model's code raises on fake tensors, as where shapes depend on values.
        """
        if plan.task not in self._sizes:
            self._sizes[plan.task] = _sizes_alike(self._config, plan.task)
        sizes = self._sizes[plan.task]
        if sizes is None or _is_of_one_layer(plan.adapter):
            model = _built(self._config, plan)
            return _step(model, self._config, plan, len(trained(model)) // 2)
        configs = [shortened(self._config, size) for size in sizes]
        models = [_built(config, plan) for config in configs]
        beginning = len(trained(models[1])) - len(trained(models[0]))
        few, more = (_step(model, config, plan, beginning) for model, config in zip(models, configs, strict=True))
        return extended(few, more, (*sizes, text_part(self._config).num_hidden_layers))


def _is_of_one_layer(adapter: AdapterSettings | None) -> bool:
    """Whether an adapter's modules are named with the number of their layer, which a smaller model may lack."""
    return adapter is not None and any(part.isdecimal() for name in adapter.target_modules for part in name.split("."))


def _sizes_alike(config: Any, task: Task) -> tuple[int, int] | None:
    """Numbers of layers to try; None if all of them are to be, because they are few, or do not grow alike."""
    layers = getattr(text_part(config), "num_hidden_layers", None)
    sizes = _trial_sizes(config, layers) if isinstance(layers, int) else None
    if sizes is None or layers is None:
        return None
    one, other, whole = (_numbers(shape, task) for shape in (*(shortened(config, size) for size in sizes), config))
    added, number = other - one, (layers - sizes[0]) // (sizes[1] - sizes[0])
    alike = added and (layers - sizes[0]) % (sizes[1] - sizes[0]) == 0 and one + number * added == whole
    return sizes if alike else None


def _trial_sizes(config: Any, layers: int) -> tuple[int, int] | None:
    """Numbers of layers to try; None if all of them are to be, because they are few or of several kinds."""
    kinds = [value for value in vars(text_part(config)).values() if isinstance(value, list) and len(value) == layers]
    period = next((n for n in range(1, layers) if all(k[i] == k[i % n] for k in kinds for i in range(layers))), layers)
    first = period * -(-_FEW // period)
    return (first, first + period) if first + period < layers else None


def shortened(config: Any, layers: int) -> Any:
    """A configuration with fewer layers."""
    short = copy.deepcopy(config)
    part = text_part(short)
    whole = part.num_hidden_layers
    for name, value in list(vars(part).items()):
        if isinstance(value, list) and len(value) == whole:
            setattr(part, name, value[:layers])
    part.num_hidden_layers = layers
    return short


def flops_per_token(config: Any, plan: Plan) -> float:
    """Floating-point operations for a token of training: 6 for each weight that multiplies, 4 for a frozen one, plus
    attention's 12 x layers x width x length (PaLM, appendix B); a third more where activations are computed again.
    """
    part, model = text_part(config), _built(config, replace(plan, quantized=False))
    tables = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    output = model.get_output_embeddings()
    tables -= {id(output.weight)} if output is not None else set()
    weights = sum(weight.numel() for weight in model.parameters() if id(weight) not in tables)
    layers, width = (getattr(part, name, 0) or 0 for name in ("num_hidden_layers", "hidden_size"))
    each = 4.0 if plan.adapter is not None else 6.0
    flops: float = (each * weights + 2 * each * layers * width * plan.length) * (4 / 3 if plan.checkpointing else 1)
    return flops


def _numbers(config: Any, task: Task) -> int:
    """Numbers in a model's weights."""
    with torch.device("meta"):
        model = getattr(transformers, tasks.of(task).auto_class).from_config(config, dtype=torch.float32)
    return sum(weight.numel() for weight in model.parameters())


def _built(config: Any, plan: Plan) -> Any:
    """The model on torch's meta device.

    Not within a fake mode, whose weights are of a class of their own: what treats frozen weights would pass over them.
    """
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return _assembled(config, plan)


def _on_a_device(model: Any) -> Any:
    """The model with its tensors on a device, for a fake mode to be entered before."""
    moved: dict[int, torch.Tensor] = {}

    def move(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in moved:
            # Not empty_like, which would make a fake tensor of the one on the meta device first.
            there = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="cpu")
            kept = isinstance(tensor, torch.nn.Parameter)
            moved[id(tensor)] = torch.nn.Parameter(there, tensor.requires_grad) if kept else there
        return moved[id(tensor)]

    for module in model.modules():
        for tensors in (module._parameters, module._buffers, module.__dict__):
            found = {name: value for name, value in tensors.items() if isinstance(value, torch.Tensor)}
            tensors.update({name: move(value) for name, value in found.items()})
    return model


def _assembled(config: Any, plan: Plan) -> Any:
    task = tasks.of(plan.task)
    model = getattr(transformers, task.auto_class).from_config(config, dtype=torch.float32)
    model.config.use_cache = False
    if plan.adapter is not None:
        targets = find_targets(model, task, plan.adapter)
        if plan.quantized:
            pack(model)
        model.requires_grad_(False)
        if plan.on_gpu and plan.precision != Precision.FP32:
            narrow_base(model, _autocast_dtype(plan))
        attach(model, targets, plan.adapter, Base(""), auto_class=task.auto_class, seed=0)
    return model


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


def _step(model: Any, config: Any, plan: Plan, beginning: int) -> Moments:
    """The moments of a step; the first of them ends when ``beginning`` weights have their gradient.

    Args:
        model: on the meta device; changed in place.
        config: its configuration.
        plan: what the device does.
        beginning: number of weights.
    """
    vocabulary = 0 if tasks.of(plan.task).has_labels else int(text_part(config).vocab_size)
    in_use = LiveBytes(vocabulary, plan.batch.rows * plan.length)
    # The first backward pass of a process starts a thread for each GPU, and a fake mode feigns one where there is none:
    # a process that is forked after that could not train.
    torch.zeros((), requires_grad=True).backward()  # type: ignore[no-untyped-call]
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake, in_use, _kernels(plan), _one_text_a_row(), torch.random.fork_rng(devices=[]):
        model = _on_a_device(model)
        if plan.checkpointing:
            # A backward pass leaves the mode that replaces kernels; what it computes again enters it.
            again: Any = {"use_reentrant": False, "context_fn": lambda: (nullcontext(), _kernels(plan))}
            model.activation_checkpointing_enable(activation_checkpointing_kwargs=again)
        learning = trained(model)
        in_use.assign([*model.parameters(), *model.buffers()], "weights")
        if plan.adapter is not None:
            in_use.assign(learning, "adapter")
        optimizer = _optimizer(plan, learning)
        _give_states(optimizer, learning, in_use)
        forward, backward = _train(model, plan, learning, optimizer, in_use, beginning)
        evaluation = _evaluate(model, plan, in_use)
    return Moments(forward, backward, evaluation)


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
    return torch.autocast("cpu", _autocast_dtype(plan), enabled=plan.precision != Precision.FP32)


def _autocast_dtype(plan: Plan) -> torch.dtype:
    return torch.float16 if plan.precision == Precision.FP16 else torch.bfloat16


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
