"""What a run will take, from its manifest: memory from the model's configuration; steps, tokens and time beside it."""

from dataclasses import dataclass
from typing import Any

import torch

from lmft_api.text.wording import size
from lmft_job.attempt.context import RunContext, quiet_transformers
from lmft_job.data.build import trained_size
from lmft_job.memory.duration import Rate, rate_for, span
from lmft_job.memory.estimating import Device, Spread, estimator, refusal, shared, spread_of
from lmft_job.memory.fitting import GPU_ERROR, Outcome, Verdict, judge
from lmft_job.memory.host import HOST_ERROR, Host, advice
from lmft_job.memory.parts import Parts
from lmft_job.memory.plan import LONGEST_ASSUMED, Plan, plan_of
from lmft_job.memory.trial.trials import Trials
from lmft_job.models import tokenizers
from lmft_job.models.build import load_config, load_tokenizer, ready_tokenizer
from lmft_job.models.config import fresh_config, position_limit, require_head
from lmft_job.stages.fit.memory import (
    admitted_layers,
    completed,
    device_of,
    fixed_length,
    host_memory,
    length_field,
    stated_memory,
)
from lmft_job.stages.sources.find import find_sources
from lmft_job.training.batch import Batch


@dataclass(frozen=True)
class Outlook:
    """What a run will take.

    Attributes:
        config: of the model.
        plan: of a step.
        parts: bytes at the busiest moment, as the manifest has it.
        device: memory to judge by; None if it is not known.
        verdict: None without a device.
        refusal: why the run would be refused; empty if it would not.
        steps: planned optimiser steps; None where the data decides.
        rate: tokens a second; None where neither measured nor in a table.
        layers: that may be checkpointed.
        spread: how several ranks hold the weights; None for one.
        host: what a pod holds of the host's memory, with what it starts with.
        advice: what to do about that; empty if nothing.
    """

    config: Any
    plan: Plan
    parts: Parts
    device: Device | None
    verdict: Verdict | None
    refusal: str
    steps: int | None
    rate: Rate | None
    host: Host
    advice: str = ""
    layers: int = 0
    spread: Spread | None = None


def estimate(context: RunContext, device: Device | None = None) -> Outlook:
    """Estimate a run; neither weights nor data are read.

    Args:
        context: of a run that is not started.
        device: memory to judge by in place of the manifest's.

    Raises:
        JobError: model or tokenizer cannot be had, or do not fit together.
        UnknownShapesError: the model's code cannot run on fake tensors.
    """
    quiet_transformers()
    settings = context.settings
    config, tokenizer = _model(context)
    device = device or device_of(context)
    limit = position_limit(config, tokenizer)
    length = fixed_length(settings) or settings.dataset.max_length or min(LONGEST_ASSUMED, limit or LONGEST_ASSUMED)
    plan, trials = plan_of(settings, length), Trials(config)
    whole = estimator(trials, device)
    spread, peak = spread_of(settings, plan, whole, device), shared(settings, config, whole, device)
    parts = peak(plan)
    layers = admitted_layers(settings, plan, trials)
    verdict = None if device is None or not plan.on_gpu else judge(plan, device.memory, peak, layers)
    refused = ""
    if device is not None and verdict is not None and verdict.outcome == Outcome.TOO_LARGE:
        refused = refusal(verdict, device, peak, length_field(context))
    rate = rate_for(trials.flops_per_token(plan), plan, _gpu_name())
    several = spread if settings.nodes * settings.gpus > 1 else None
    started = (plan, parts) if verdict is None else (verdict.plan, verdict.parts)
    host = host_memory(settings, config, *started, whole, device)
    # Without resources it is a run on this machine, or one that the platform's defaults are meant for.
    told = "" if context.run.spec.resources is None else advice(host, stated_memory(context))
    return Outlook(
        config, plan, parts, device, verdict, refused, settings.training.max_steps, rate, host, told, layers, several
    )


def _gpu_name() -> str | None:
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def _model(context: RunContext) -> tuple[Any, Any]:
    """Configuration and tokenizer; one that the data would train is replaced by one with its special tokens."""
    spec, settings = context.run.spec.model, context.settings
    sources = find_sources(context, context.run_store(), weights=False)
    trust = bool(spec.trust_remote_code)
    if sources.tokenizer:
        tokenizer = load_tokenizer(sources.tokenizer.path, "spec.model.tokenizer.name")
    elif sources.model:
        tokenizer = load_tokenizer(sources.model.path, "spec.model.name", trust_remote_code=trust)
    else:
        tokenizer = tokenizers.train(iter([["a b c"]]), 0, settings.task)
    tokenizer = ready_tokenizer(tokenizer, settings.task)
    if sources.model:
        config = load_config(sources.model.path, "spec.model.name", trust_remote_code=trust, labels=None)
    else:
        wanted = None if sources.tokenizer else trained_size(settings)
        config = fresh_config(spec.from_config or {}, tokenizer, None, wanted)
    require_head(settings.task, config)
    return completed(config, context, tokenizer), tokenizer


def lines(name: str, outlook: Outlook) -> list[str]:
    """The estimate for people, with its parts and what it means for the device."""
    plan, device, verdict = outlook.plan, outlook.device, outlook.verdict
    where = "one GPU" if plan.on_gpu else "CPU"
    told = [f"  {name} · {plan.task} · {outlook.config.model_type} · {where}, {plan.precision}"]
    told.append(f"  {'batch':<12}{_batch(plan.batch)} of up to {plan.length:,} tokens")
    if outlook.spread is not None:
        told.append(f"  {'ranks':<12}{_spread(outlook.spread)}")
    told += [f"  {part:<12}{size(count):>10}" for part, count in outlook.parts.by_name().items() if count]
    error = f" (within {GPU_ERROR:.0%}: unverified for GPUs)" if plan.on_gpu else ""
    told.append(f"  {'peak':<12}{size(outlook.parts.total):>10}{error}")
    if device is not None and verdict is not None:
        told.append(f"  {'device':<12}{size(device.memory):>10} ({device.source}): {_fits(outlook, verdict)}")
    elif plan.on_gpu:
        told.append(f"  {'device':<12}not known: set spec.resources.gpuMemory, or --gpu-memory")
    said = [f"  {words}" for words in (outlook.refusal, outlook.advice) if words]
    return [*told, _host(outlook), *_time(outlook), *said]


def _host(outlook: Outlook) -> str:
    """What a pod, or the process on a laptop, holds of the host's memory."""
    host, unverified = outlook.host, ": unverified for GPUs" if outlook.plan.on_gpu else ""
    busiest = max(("loading", "training", "publishing"), key=lambda name: host.held[name])
    beside = f"; {size(host.beside)} with checkpoints written beside training" if host.beside > host.needed else ""
    return (
        f"  {'host':<12}{size(host.needed):>10} (within {HOST_ERROR:.0%}{unverified}): libraries "
        f"{size(host.processes)}, {busiest} {size(host.held[busiest])}{beside}"
    )


def _batch(batch: Batch) -> str:
    passes = f", {batch.accumulation} passes a step" if batch.accumulation > 1 else ""
    return f"{batch.rows} row{'s' * (batch.rows != 1)}{passes}"


def _spread(spread: Spread) -> str:
    holds = f"a share of 1/{spread.ranks}" if spread.ranks > 1 else "all weights"
    return f"{spread.division}: each holds {holds}, {size(spread.each)} without activations"


def _fits(outlook: Outlook, verdict: Verdict) -> str:
    if verdict.outcome == Outcome.TOO_LARGE:
        return "too small even for one row"
    if verdict.outcome == Outcome.FITS:
        return "fits"
    chosen = [f"starts with {_batch(verdict.plan.batch)} ({size(verdict.parts.total)})"]
    if verdict.plan.checkpointing != outlook.plan.checkpointing:
        chosen.append(f"activation checkpointing of {verdict.plan.checkpointing.noted(outlook.layers)}")
    if verdict.plan.batch != outlook.plan.batch:
        chosen.append("the same effective batch")
    return ", ".join(chosen)


def _time(outlook: Outlook) -> list[str]:
    """Steps, tokens and time; where the data decides how many steps there are, only the rate."""
    told, steps, batch, rate = [], outlook.steps, outlook.plan.batch, outlook.rate
    tokens = None
    if steps is not None:
        tokens = steps * batch.rows * batch.accumulation * outlook.plan.length
        told.append(f"  {'steps':<12}{steps:,} · up to {tokens:,} tokens")
    else:
        told.append(f"  {'steps':<12}the data decides (spec.training.epochs)")
    if rate is None:
        told.append(f"  {'time':<12}not known: the rate of the GPU is neither measured nor in the table")
    else:
        told.append(f"  {'rate':<12}{rate.least:,.0f} to {rate.most:,.0f} tokens a second, from {rate.source}")
        if tokens is not None:
            told.append(f"  {'time':<12}{span((tokens / rate.most, tokens / rate.least))}, without evaluations")
    return told


def as_plain(name: str, outlook: Outlook) -> dict[str, Any]:
    """The estimate as plain data: bytes, steps, tokens a second; None for what is not known."""
    plan, device, verdict, rate = outlook.plan, outlook.device, outlook.verdict, outlook.rate
    return {
        "name": name,
        "task": str(plan.task),
        "modelType": outlook.config.model_type,
        "onGPU": plan.on_gpu,
        "precision": str(plan.precision),
        "batch": {"rows": plan.batch.rows, "accumulation": plan.batch.accumulation, "length": plan.length},
        "bytes": {**outlook.parts.by_name(), "peak": outlook.parts.total},
        "device": None if device is None else {"bytes": device.memory, "source": device.source},
        "fits": None if verdict is None else verdict.outcome != Outcome.TOO_LARGE,
        "startsWith": None if verdict is None else _start(verdict, outlook.layers),
        "ranks": None
        if outlook.spread is None
        else {"parallelism": str(outlook.spread.division), "share": outlook.spread.ranks, "bytes": outlook.spread.each},
        "hostBytes": outlook.host.by_name(),
        "hostAdvice": outlook.advice or None,
        "steps": outlook.steps,
        "tokensPerSecond": None if rate is None else {"least": rate.least, "most": rate.most, "source": rate.source},
        "refusal": outlook.refusal or None,
    }


def _start(verdict: Verdict, layers: int) -> dict[str, Any]:
    batch, checkpointing = verdict.plan.batch, verdict.plan.checkpointing
    return {
        "rows": batch.rows,
        "accumulation": batch.accumulation,
        "checkpointedLayers": min(checkpointing.layers, layers),
        "offload": checkpointing.offload,
    }
