"""Whether a run fits into a device, with how large a batch, and what would make it fit; from estimates alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from lmft_api.spec import ALL_LINEAR, AdapterType
from lmft_api.spec.resolved import AdapterSettings
from lmft_job.memory.parts import GIB, Parts
from lmft_job.memory.plan import Plan
from lmft_job.training.batch import ALL_LAYERS, Batch, Checkpointing

GPU_ERROR = 0.20
"""Error of an estimate for a GPU. Assumed: one figure was measured, 22.8 GiB where 23.1 are estimated (GPT-2, H100)."""
DRIVER_BYTES = GIB // 2
"""What CUDA's context and the libraries' workspaces take. Assumed."""
FRAGMENTED = 0.05
"""Share of gradients, activations and logits that the allocator loses between them. Assumed."""

Peak = Callable[[Plan], Parts]
"""Estimates the busiest moment of a plan."""


class Outcome(StrEnum):
    """Whether a run fits."""

    FITS = "Fits"
    ADJUSTED = "Adjusted"
    TOO_LARGE = "TooLarge"


@dataclass(frozen=True)
class Verdict:
    """Whether a run fits into a device.

    Attributes:
        outcome: as it is, with checkpointed layers or a smaller batch of the same effective size, or not at all.
        plan: with which it starts; the one that takes least where nothing fits.
        parts: the busiest moment with that plan.
        memory: bytes of the device.
    """

    outcome: Outcome
    plan: Plan
    parts: Parts
    memory: int


def with_overhead(parts: Parts) -> Parts:
    """What a GPU's driver and allocator take in addition."""
    moving = parts.gradients + parts.activations + parts.logits
    return replace(parts, overhead=DRIVER_BYTES + int(FRAGMENTED * moving))


def judge(plan: Plan, memory: int, peak: Peak, layers: int = 0) -> Verdict:
    """With what a run starts: refused only where the least that it can take exceeds the memory by more than the error.

    In this order: as few checkpointed layers as make the whole batch fit; a smaller batch, again with as few; one row
    with all layers checkpointed and their inputs in the host's memory.

    Args:
        plan: as the manifest has it.
        memory: bytes of the device.
        peak: estimates a plan.
        layers: that may be checkpointed; 0 if the manifest or the model does not admit it.
    """
    whole = peak(plan)
    if whole.total <= memory:
        return Verdict(Outcome.FITS, plan, whole, memory)
    least = replace(plan, checkpointing=Checkpointing(layers)) if plan.checkpointing.layers < layers else plan
    one = replace(least, batch=rows_of(plan.batch, 1))
    least = replace(least, batch=_largest(least, memory, peak))
    if peak(least).total <= memory:
        return Verdict(Outcome.ADJUSTED, *_fewest(plan.checkpointing, least, memory, peak), memory)
    if layers:
        outside = replace(one, checkpointing=Checkpointing(layers, offload=True))
        one = min(one, outside, key=lambda chosen: peak(chosen).total)
    parts = peak(one)
    outcome = Outcome.TOO_LARGE if surely_too_large(parts, memory) else Outcome.ADJUSTED
    if outcome == Outcome.ADJUSTED and one == plan:
        outcome = Outcome.FITS
    return Verdict(outcome, one, parts, memory)


def _fewest(planned: Checkpointing, least: Plan, memory: int, peak: Peak) -> tuple[Plan, Parts]:
    """The plan with as few checkpointed layers as fit, of one that fits; more layers take less."""
    low, high = planned.layers, least.checkpointing.layers
    while low < high:
        middle = (low + high) // 2
        if peak(replace(least, checkpointing=Checkpointing(middle))).total <= memory:
            high = middle
        else:
            low = middle + 1
    chosen = replace(least, checkpointing=Checkpointing(high))
    return chosen, peak(chosen)


def surely_too_large(parts: Parts, memory: int) -> bool:
    """Whether an estimate exceeds the memory by more than its error."""
    return parts.total > (1 + GPU_ERROR) * memory


def rows_of(batch: Batch, rows: int) -> Batch:
    """A batch with fewer rows in a pass, and the same rows in a step."""
    return Batch(rows, batch.rows * batch.accumulation // rows)


def _largest(plan: Plan, memory: int, peak: Peak) -> Batch:
    """The largest batch that fits, of those with the same rows in a step; one row if none does.

    Memory grows with the rows, and almost evenly: the search begins where a straight line says, for a look takes time.
    """
    whole = peak(plan)
    if whole.total <= memory:
        return plan.batch
    one = peak(replace(plan, batch=rows_of(plan.batch, 1)))
    step = plan.batch.rows * plan.batch.accumulation
    sizes = [rows for rows in range(1, plan.batch.rows) if step % rows == 0] or [1]
    each = (whole.total - one.total) / max(1, plan.batch.rows - 1)
    best, low, high = rows_of(plan.batch, 1), 1, len(sizes) - 1
    if one.total > memory:
        return best
    look = max([low, *(index for index in range(low, high + 1) if one.total + (sizes[index] - 1) * each <= memory)])
    while low <= high:
        batch = rows_of(plan.batch, sizes[look])
        if peak(replace(plan, batch=batch)).total <= memory:
            best, low, look = batch, look + 1, look + 1
        else:
            high, look = look - 1, look - 1
    return best


# Changes of a manifest that save memory, from the cheapest on: they cost time or quality, and no larger GPU

_SHORTEST = 128
"""Least tokens of a row that are suggested."""

_LORA = AdapterSettings(AdapterType.LORA, 16, 32, 0.05, (ALL_LINEAR,), False)
"""What ``adapter: {type: LoRA}`` means."""

Step = Callable[[Plan], Plan]


@dataclass(frozen=True)
class Priced:
    """A change with its estimate in bytes, and whether that fits."""

    words: str
    total: int
    fits: bool


def priced(plan: Plan, memory: int, peak: Peak, length_field: str) -> list[Priced]:
    """Changes of a run that does not fit with one row in a pass, with their estimates.

    Args:
        plan: the one that takes least of what the manifest admits.
        memory: bytes of the device.
        peak: estimates a plan.
        length_field: field that sets the length of rows, such as ``spec.dataset.blockSize``; empty if none does.

    Returns:
        Each change alone; if none of them is enough, the smallest number of them together that is, or all.
    """
    one = replace(plan, batch=rows_of(plan.batch, 1))

    def price(changed: Plan) -> Priced:
        total = peak(changed).total
        return Priced(_words(plan, changed, length_field), total, total <= memory)

    found = [price(changed) for changed in _alone(one, length_field)]
    if any(change.fits for change in found):
        return found
    for changed in _together(one, length_field):
        change = price(changed)
        if change.fits:
            return [*found, change]
    return found


def _steps(length_field: str) -> tuple[Step, ...]:
    return (_checkpointed, _adapted, _quantized, *((_shortened,) if length_field else ()))


def _alone(plan: Plan, length_field: str) -> Iterator[Plan]:
    return (changed for step in _steps(length_field) if (changed := step(plan)) != plan)


def _together(plan: Plan, length_field: str) -> Iterator[Plan]:
    """Each step on top of those before it, then ever shorter rows."""
    for number, step in enumerate(_steps(length_field)):
        before, plan = plan, step(plan)
        if number and plan != before:
            yield plan
    while length_field and (shorter := _shortened(plan)) != plan:
        plan = shorter
        yield plan


def _checkpointed(plan: Plan) -> Plan:
    return plan if plan.checkpointing.layers else replace(plan, checkpointing=Checkpointing(ALL_LAYERS))


def _adapted(plan: Plan) -> Plan:
    return replace(plan, adapter=plan.adapter or _LORA) if plan.pretrained else plan


def _quantized(plan: Plan) -> Plan:
    return replace(_adapted(plan), quantized=True) if plan.pretrained else plan


def _shortened(plan: Plan) -> Plan:
    return replace(plan, length=plan.length // 2) if plan.length // 2 >= _SHORTEST else plan


def _words(before: Plan, after: Plan, length_field: str) -> str:
    """What to set in the manifest."""
    settings = {
        "spec.training.gradientCheckpointing: true": after.checkpointing != before.checkpointing,
        "spec.training.adapter: {type: LoRA}": after.adapter != before.adapter,
        "spec.training.quantization: NF4": after.quantized != before.quantized,
        f"{length_field}: {after.length}": after.length != before.length,
    }
    return " and ".join(setting for setting, changed in settings.items() if changed)
