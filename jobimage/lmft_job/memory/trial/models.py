"""Models for trials: of their whole configuration, or with a few of their layers where these are alike."""

import copy
from typing import Any

import torch
import transformers

from lmft_api.spec import Precision
from lmft_api.tasks import Task
from lmft_job import tasks
from lmft_job.adapters.attach import Base, attach, narrow_base
from lmft_job.adapters.targets import find_targets
from lmft_job.memory.plan import Plan
from lmft_job.memory.trial.quantized import pack
from lmft_job.models.config import text_part

_FEW = 2
"""Least layers of a trial: the first and the last of them are then different ones."""


def built(config: Any, plan: Plan) -> Any:
    """The model on torch's meta device.

    Not of hollow tensors, which are of a class of their own: what treats frozen weights would pass over them.
    """
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return _assembled(config, plan)


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
            narrow_base(model, autocast_dtype(plan))
        attach(model, targets, plan.adapter, Base(""), auto_class=task.auto_class, seed=0)
    return model


def autocast_dtype(plan: Plan) -> torch.dtype:
    """The type of matrix products with mixed precision."""
    return torch.float16 if plan.precision == Precision.FP16 else torch.bfloat16


def sizes_alike(config: Any, task: Task) -> tuple[int, int] | None:
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


def _numbers(config: Any, task: Task) -> int:
    """Numbers in a model's weights."""
    with torch.device("meta"):
        model = getattr(transformers, tasks.of(task).auto_class).from_config(config, dtype=torch.float32)
    return sum(weight.numel() for weight in model.parameters())


def multiplying(model: Any) -> int:
    """Numbers in the weights that multiply: tables of embeddings are only read."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    output = model.get_output_embeddings()
    tables -= {id(output.weight)} if output is not None else set()
    return sum(weight.numel() for weight in model.parameters() if id(weight) not in tables)
