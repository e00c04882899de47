"""Before weights are loaded: whether the run fits into its GPU, and with which batch and checkpointing it starts."""

import copy
from dataclasses import replace
from typing import Any

import torch

from lmft_api.schema.rules import amount
from lmft_api.spec import Packing, Precision
from lmft_api.spec.resolved import Settings
from lmft_api.text.wording import first_line, shorten
from lmft_api.wire.layout import ADJUSTMENT_KEY
from lmft_api.wire.report import DatasetFigures
from lmft_api.wire.run_file import Stage
from lmft_job.attempt.context import RunContext
from lmft_job.errors import AcceleratorMemoryError
from lmft_job.memory.estimating import Device, UnknownShapesError, adjusted, estimator, refusal, shared, spread_of
from lmft_job.memory.fitting import Outcome, Peak, judge
from lmft_job.memory.host import Host, advice, host_of
from lmft_job.memory.parts import Parts
from lmft_job.memory.plan import LONGEST_ASSUMED, Plan, plan_of
from lmft_job.memory.trial.trials import Trials
from lmft_job.models.config import complete_config, text_part
from lmft_job.models.tokenizers import id_count
from lmft_job.storage import Store


def device_of(context: RunContext) -> Device | None:
    """Memory of the run's GPU: by the manifest, the platform's table, or of the one that is here; None if unknown."""
    resources = context.run.spec.resources
    if not context.settings.gpus:
        return None
    if resources is not None and resources.gpu_memory is not None:
        return Device(int(amount(resources.gpu_memory)), "spec.resources.gpuMemory")
    if context.run.gpu_memory is not None:
        return Device(int(amount(context.run.gpu_memory)), "by the platform's job.gpuMemory")
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
        return Device(memory, torch.cuda.get_device_name(0))
    return None


def fit_before_data(context: RunContext, store: Store, config: Any, tokenizer: Any) -> None:
    """:func:`fit` of a run whose manifest says how long its rows are; before weights are loaded."""
    if length := fixed_length(context.settings):
        fit(context, store, config, tokenizer, length)


def fit_to_data(context: RunContext, store: Store, config: Any, tokenizer: Any, figures: DatasetFigures) -> None:
    """:func:`fit` of a run whose texts say how long its rows are."""
    if fixed_length(context.settings) is None:
        fit(context, store, config, tokenizer, longest_row(context.settings, figures))


def fixed_length(settings: Settings) -> int | None:
    """Tokens of every row, where the manifest decides: those of a block, or of a pack of conversations."""
    dataset = settings.dataset
    return dataset.max_length if dataset.packing == Packing.ROWS else dataset.block_size


def fit(context: RunContext, store: Store, config: Any, tokenizer: Any, length: int) -> None:
    """Refuse a run that surely does not fit, and store what one starts with that is predicted not to fit.

    Decided once: by the preparation, else by the first attempt that has a GPU.

    Args:
        context: of the attempt.
        store: rooted at the run's folder.
        config: of the model.
        tokenizer: of the run.
        length: tokens of the longest row.

    Raises:
        AcceleratorMemoryError: not even one row fits, by more than the estimate's error.
    """
    if context.run.stage == Stage.PREPARE:
        store.delete([ADJUSTMENT_KEY])  # of a manifest that has changed since
    elif not torch.cuda.is_available() or store.get_bytes(ADJUSTMENT_KEY) is not None:
        return
    device = device_of(context)
    if device is None:
        return
    plan, whole = plan_of(context.settings, length), completed(config, context, tokenizer)
    trials = Trials(whole)
    undivided = estimator(trials, device)
    peak = shared(context.settings, whole, undivided, device)
    try:
        layers = admitted_layers(context.settings, plan, trials)
        verdict = judge(plan, device.memory, peak, layers)
        if verdict.outcome == Outcome.TOO_LARGE:
            raise AcceleratorMemoryError(refusal(verdict, device, peak, length_field(context)))
        host = host_memory(context.settings, whole, verdict.plan, verdict.parts, undivided, device)
    except UnknownShapesError as error:
        context.observer.note(f"the memory that this model needs is not estimated ({error})")
        return
    if other := adjusted(plan, verdict, layers):
        other.save(store)
        context.progress.adjustments = list(other.notes)
        context.observer.note(other.notes[-1])
    memory = stated_memory(context)
    if memory is not None and memory < host.needed:
        context.observer.note(advice(host, memory))


def stated_memory(context: RunContext) -> int | None:
    """Bytes of ``spec.resources.memory``; None where the manifest does not say."""
    resources = context.run.spec.resources
    return None if resources is None or resources.memory is None else int(amount(resources.memory))


def host_memory(
    settings: Settings, config: Any, plan: Plan, parts: Parts, undivided: Peak, device: Device | None
) -> Host:
    """What a pod of the run holds of the host's memory.

    Args:
        settings: of the run.
        config: of the model.
        plan: with which it starts.
        parts: of one process with that plan.
        undivided: estimates a plan of one process that holds all weights.
        device: memory of a GPU.

    Raises:
        UnknownShapesError: the model's code cannot run on fake tensors.
    """
    frozen = 2 if plan.on_gpu and plan.adapter is not None else 4
    weights = undivided(replace(plan, quantized=False)).weights // frozen
    layer = (getattr(text_part(config), "hidden_size", None) or 0) * (4 if plan.precision == Precision.FP32 else 2)
    spread = spread_of(settings, plan, undivided, device)
    return host_of(plan, parts, weights, spread, local=max(1, settings.gpus), width=layer)


def admitted_layers(settings: Settings, plan: Plan, trials: Trials) -> int:
    """Layers that may be checkpointed: all, or none where the manifest says so or the model does not support it.

    Raises:
        UnknownShapesError: the model cannot be built without its weights.
    """
    if settings.training.gradient_checkpointing is False:
        return 0
    try:
        return trials.checkpointable(plan)
    except Exception as error:
        raise UnknownShapesError(f"{type(error).__name__}: {shorten(first_line(error), 200)}") from error


def completed(config: Any, context: RunContext, tokenizer: Any) -> Any:
    """A copy of the configuration with what a run fills in."""
    config = copy.deepcopy(config)
    complete_config(config, context.settings.task, tokenizer)
    part = text_part(config)
    if isinstance(getattr(part, "vocab_size", None), int):
        part.vocab_size = max(part.vocab_size, id_count(tokenizer))
    return config


def longest_row(settings: Settings, figures: DatasetFigures) -> int:
    """Tokens of the longest row of padded texts."""
    if figures.conversations is not None and figures.conversations.packs is not None:
        return figures.conversations.max_length
    longest = figures.lengths.maximum if figures.lengths else LONGEST_ASSUMED
    return min(longest, figures.longest_input or longest, settings.dataset.max_length or longest)


def length_field(context: RunContext) -> str:
    """Field of the manifest that sets the length of rows; empty if their texts do."""
    dataset = context.settings.dataset
    if dataset.has_conversations:
        return "spec.dataset.maxLength"
    return "spec.dataset.blockSize" if dataset.block_size else ""
