"""Estimates of a run's memory from its model's configuration, and what they mean for a device, in words."""

import logging
from dataclasses import dataclass, replace
from typing import Any

from lmft_api.spec.resolved import Settings
from lmft_api.text.wording import first_line, shorten, size
from lmft_job import tasks
from lmft_job.distributed.world import World
from lmft_job.memory.fitting import GPU_ERROR, Outcome, Peak, Verdict, priced, with_overhead
from lmft_job.memory.parts import Parts
from lmft_job.memory.plan import Plan
from lmft_job.memory.trial.trials import Trials
from lmft_job.models.config import text_part
from lmft_job.sharding.choose import Division, Weights, choose
from lmft_job.training.acceleration.selection import logits_are_large
from lmft_job.training.batch import Adjustment

log = logging.getLogger(__name__)


class UnknownShapesError(Exception):
    """A model whose code cannot run on fake tensors, such as one whose shapes depend on values."""


@dataclass(frozen=True)
class Device:
    """Memory to judge by.

    Attributes:
        memory: bytes.
        source: where the figure comes from, such as ``spec.resources.gpuMemory``.
    """

    memory: int
    source: str


def estimator(trials: Trials, device: Device | None) -> Peak:
    """Estimates plans for a model and a device; each once.

    Raises, when called:
        UnknownShapesError: the model's code cannot run on fake tensors.
    """
    known: dict[Plan, Parts] = {}
    vocabulary = getattr(text_part(trials.config), "vocab_size", 0) or 0

    def peak(plan: Plan) -> Parts:
        if plan not in known:
            large = device is not None and logits_are_large(plan.batch.rows * plan.length * vocabulary, device.memory)
            fused = plan.on_gpu and large and tasks.of(plan.task).causal
            try:
                parts = trials.moments(replace(plan, fused_loss=fused)).peak
            except Exception as error:
                log.debug("no estimate", exc_info=True)
                raise UnknownShapesError(f"{type(error).__name__}: {shorten(first_line(error), 200)}") from error
            known[plan] = with_overhead(parts) if plan.on_gpu else parts
        return known[plan]

    return peak


@dataclass(frozen=True)
class Spread:
    """How a run's weights are held by its ranks.

    Attributes:
        division: whole in each, or divided.
        ranks: how many hold one copy together.
        each: bytes of a rank without activations.
    """

    division: Division
    ranks: int
    each: int


def spread_of(settings: Settings, plan: Plan, peak: Peak, device: Device | None) -> Spread:
    """How the weights of a plan are held, by its estimate; the run counts its weights again, and decides then."""
    local = max(1, settings.gpus)
    world = World(0, settings.nodes * local, 0, local, 0, settings.nodes)
    parts, width = peak(plan), 2 if plan.on_gpu else 4
    weights = Weights(parts.weights // 4)
    if plan.adapter is not None:
        weights = Weights(parts.adapter // 4, parts.weights // width, width)
    memory = None if device is None else device.memory
    division = Division.NONE if plan.quantized else choose(settings, weights, world, memory)
    ranks = {Division.NONE: 1, Division.NODES: local, Division.ALL: world.size}[division]
    return Spread(division, ranks, weights.bytes_in(ranks))


def shared(settings: Settings, config: Any, peak: Peak, device: Device | None) -> Peak:
    """The estimates of one rank, where several may divide the weights."""
    layers = getattr(text_part(config), "num_hidden_layers", None) or 1

    def mine(plan: Plan) -> Parts:
        spread = spread_of(settings, plan, peak, device)
        return peak(plan) if spread.ranks == 1 else peak(plan).divided(spread.ranks, layers)

    return mine


def changes(plan: Plan, verdict: Verdict, layers: int) -> list[str]:
    """What a run starts with in place of its plan, in words."""
    chosen, said = verdict.plan, []
    if chosen.checkpointing != plan.checkpointing:
        said.append(f"activation checkpointing of {chosen.checkpointing.noted(layers)}")
    if chosen.batch != plan.batch:
        said.append(
            f"perDeviceBatchSize {plan.batch.rows} → {chosen.batch.rows}, "
            f"gradientAccumulationSteps {plan.batch.accumulation} → {chosen.batch.accumulation}"
        )
    return said


def adjusted(plan: Plan, verdict: Verdict, layers: int) -> Adjustment | None:
    """With what the run starts in place of its plan, and a note that says so; None for the plan."""
    if verdict.outcome != Outcome.ADJUSTED:
        return None
    said = ", ".join(changes(plan, verdict, layers))
    note = f"predicted not to fit into {size(verdict.memory)} of accelerator memory: {said}"
    return Adjustment(verdict.plan.batch, (note,), verdict.plan.checkpointing)


def refusal(verdict: Verdict, device: Device, peak: Peak, length_field: str) -> str:
    """Why a run is refused, and the changes that would make it fit, each with its estimate."""
    found = priced(verdict.plan, device.memory, peak, length_field)
    enough = next((change for change in found if change.fits), None)
    each = "; ".join(f"{change.words} ({size(change.total)})" for change in found)
    if enough is not None:
        advice = f"The cheapest change that fits: {enough.words} ({size(enough.total)})."
        if len(found) > 1:
            advice += f" Estimates: {each}."
    else:
        advice = "Choose a smaller model or a larger GPU" + (f"; not enough are: {each}." if each else ".")
    return (
        f"one row of {verdict.plan.length:,} tokens needs about {size(verdict.parts.total)} of accelerator memory "
        f"(within {GPU_ERROR:.0%}, estimated before training), and the GPU has {size(device.memory)} "
        f"({device.source}). {advice}"
    )
