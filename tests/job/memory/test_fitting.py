"""Whether a run fits, from estimates that the tests make up: memory of a run is fixed, and some for each token."""

from dataclasses import replace

import pytest
import transformers

from lmft_api.spec import LMFineTuneSpec
from lmft_api.spec.resolved import Settings, resolve
from lmft_api.tasks import Task
from lmft_job.memory.estimating import Device, adjusted, shared, spread_of
from lmft_job.memory.fitting import GPU_ERROR, Outcome, Peak, judge, priced, with_overhead
from lmft_job.memory.parts import Moments, Parts, extended
from lmft_job.memory.plan import Plan, plan_of
from lmft_job.training.batch import ALL_LAYERS, NO_CHECKPOINTING, Batch, Checkpointing

LAYERS = 10
PLAN = Plan(Task.CAUSAL_LM, length=1000, batch=Batch(8), on_gpu=True)


def peak(fixed: int, token: float) -> Peak:
    """Of ten layers each saves 7.5 % of the activations when checkpointed, and 1.5 % more when its input is elsewhere.

    An adapter saves nine tenths of the rest, NF4 a half of that.
    """

    def estimate(plan: Plan) -> Parts:
        weights = fixed // (20 if plan.quantized else 10 if plan.adapter else 1)
        layers = min(LAYERS, plan.checkpointing.layers)
        each = token * (1 - layers / LAYERS * (0.9 if plan.checkpointing.offload else 0.75))
        return Parts(weights=weights, activations=int(each * plan.batch.rows * plan.length))

    return estimate


@pytest.mark.parametrize(
    ("batch", "memory", "outcome", "chosen"),
    [
        (Batch(8), 9000, Outcome.FITS, Batch(8)),
        (Batch(8), 8999, Outcome.ADJUSTED, Batch(4, 2)),
        (Batch(8, 2), 5000, Outcome.ADJUSTED, Batch(4, 4)),
        (Batch(6), 4500, Outcome.ADJUSTED, Batch(3, 2)),
        (Batch(7), 4500, Outcome.ADJUSTED, Batch(1, 7)),
        (Batch(8), 2000, Outcome.ADJUSTED, Batch(1, 8)),
        (Batch(8), 1700, Outcome.ADJUSTED, Batch(1, 8)),  # too small, within the error: tried
        (Batch(8), 1600, Outcome.TOO_LARGE, Batch(1, 8)),
        (Batch(1), 1700, Outcome.FITS, Batch(1)),
    ],
)
def test_a_run_starts_with_the_largest_batch_that_fits(
    batch: Batch, memory: int, outcome: Outcome, chosen: Batch
) -> None:
    verdict = judge(replace(PLAN, batch=batch), memory, peak(1000, 1))

    assert (verdict.outcome, verdict.plan.batch) == (outcome, chosen)
    assert chosen.rows * chosen.accumulation == batch.rows * batch.accumulation
    assert verdict.plan.checkpointing == NO_CHECKPOINTING, "which the manifest does not admit"
    assert verdict.parts == peak(1000, 1)(verdict.plan)


@pytest.mark.parametrize(
    ("batch", "planned", "memory", "outcome", "chosen", "layers", "offload"),
    [
        (Batch(8), 0, 9000, Outcome.FITS, Batch(8), 0, False),
        (Batch(8), 0, 8400, Outcome.ADJUSTED, Batch(8), 1, False),
        (Batch(8), 0, 8399, Outcome.ADJUSTED, Batch(8), 2, False),
        (Batch(8), 0, 3000, Outcome.ADJUSTED, Batch(8), 10, False),
        (Batch(8), 0, 2999, Outcome.ADJUSTED, Batch(4, 2), 7, False),  # fewer than would be needed at the least
        (Batch(8), 0, 1250, Outcome.ADJUSTED, Batch(1, 8), 10, False),
        (Batch(8), 0, 1249, Outcome.ADJUSTED, Batch(1, 8), 10, True),
        (Batch(8), 0, 1099, Outcome.ADJUSTED, Batch(1, 8), 10, True),  # too small, within the error: tried
        (Batch(8), 0, 900, Outcome.TOO_LARGE, Batch(1, 8), 10, True),
        (Batch(8), ALL_LAYERS, 3000, Outcome.FITS, Batch(8), ALL_LAYERS, False),
        (Batch(8), ALL_LAYERS, 2999, Outcome.ADJUSTED, Batch(4, 2), ALL_LAYERS, False),  # as the manifest says
        (Batch(1), 0, 1999, Outcome.ADJUSTED, Batch(1), 1, False),
    ],
)
def test_before_the_batch_is_made_smaller_as_few_layers_are_checkpointed_as_make_it_fit(
    batch: Batch, planned: int, memory: int, outcome: Outcome, chosen: Batch, layers: int, offload: bool
) -> None:
    plan = replace(PLAN, batch=batch, checkpointing=Checkpointing(planned))

    verdict = judge(plan, memory, peak(1000, 1), LAYERS)

    assert (verdict.outcome, verdict.plan.batch) == (outcome, chosen)
    assert verdict.plan.checkpointing == Checkpointing(layers, offload)
    note = adjusted(plan, verdict, LAYERS)
    assert (note is None) == (outcome != Outcome.ADJUSTED)
    if note is not None:
        assert (note.batch, note.checkpointing) == (chosen, Checkpointing(layers, offload))
        assert ("perDeviceBatchSize" in note.notes[0]) == (chosen != batch)
        assert ("activation checkpointing of" in note.notes[0]) == (planned == 0)
        assert ("host memory" in note.notes[0]) == offload


def test_only_what_exceeds_the_error_is_refused() -> None:
    one = peak(1000, 1)(replace(PLAN, batch=Batch(1))).total

    outcomes = [judge(PLAN, int(one / (1 + GPU_ERROR)) + more, peak(1000, 1)).outcome for more in (-1, 1)]

    assert outcomes == [Outcome.TOO_LARGE, Outcome.ADJUSTED]


@pytest.mark.parametrize(
    ("memory", "pretrained", "field", "last"),
    [
        (1300, False, "spec.dataset.blockSize", "spec.training.gradientCheckpointing: true"),
        (1100, True, "", "spec.training.adapter: {type: LoRA} and spec.training.quantization: NF4"),
        (400, True, "", "spec.training.gradientCheckpointing: true and spec.training.adapter: {type: LoRA}"),
        (310, True, "",
         "spec.training.gradientCheckpointing: true and spec.training.adapter: {type: LoRA} and "
         "spec.training.quantization: NF4"),
        (180, True, "spec.dataset.blockSize",
         "spec.training.gradientCheckpointing: true and spec.training.adapter: {type: LoRA} and "
         "spec.training.quantization: NF4 and spec.dataset.blockSize: 500"),
    ],
)  # fmt: skip
def test_the_changes_that_would_fit_come_with_their_estimates(
    memory: int, pretrained: bool, field: str, last: str
) -> None:
    found = priced(replace(PLAN, pretrained=pretrained), memory, peak(1000, 1), field)

    assert all(change.fits == (change.total <= memory) for change in found)
    assert last in [change.words for change in found if change.fits]


def test_without_any_change_that_fits_none_is_called_one() -> None:
    assert not any(change.fits for change in priced(PLAN, 100, peak(1000, 1), "spec.dataset.blockSize"))


def test_layers_are_added_to_each_part() -> None:
    few = Moments(Parts(weights=20, activations=7), Parts(weights=20, gradients=10), Parts(weights=20))
    more = Moments(Parts(weights=30, activations=9), Parts(weights=30, gradients=20), Parts(weights=30))

    whole = extended(few, more, (2, 3, 12))

    assert whole.forward == Parts(weights=120, activations=27)
    assert whole.backward == Parts(weights=120, gradients=110)
    assert whole.peak == whole.backward


def test_what_a_driver_and_an_allocator_take_is_a_part_of_its_own() -> None:
    assert with_overhead(Parts(weights=1000, activations=10**10)).overhead > 5 * 10**8


GPU = Device(80 * 10**9, "by hand")
FOUR_ON_EACH = {"nodes": 2, "gpusPerNode": 4, "gpuMemory": "80G"}


def several(**training: object) -> Settings:
    model = {"name": "org/model"}
    return resolve(LMFineTuneSpec.parse({"model": model, "dataset": {"builtin": "PythonDocs"}, "training": training,
                                         "resources": FOUR_ON_EACH}))  # fmt: skip


def of_weights(billions: float) -> Peak:
    """Weights in FP32 as many as that, their gradients and AdamW's averages; an adapter of a hundredth beside BF16."""
    count = int(billions * 1e9)

    def estimate(plan: Plan) -> Parts:
        if plan.adapter is not None:
            return Parts(weights=2 * count, adapter=count // 25, gradients=count // 25, optimiser=count // 12)
        return Parts(weights=4 * count, gradients=4 * count, optimiser=8 * count, activations=10**9)

    return estimate


@pytest.mark.parametrize(
    ("training", "billions", "division", "ranks"),
    [
        ({}, 2, "DDP", 1),
        ({}, 3, "FSDP within each node", 4),
        ({}, 10, "FSDP", 8),
        ({"parallelism": "FSDP"}, 1, "FSDP within each node", 4),
        ({"parallelism": "DDP"}, 10, "DDP", 1),
        ({"adapter": {}}, 15, "DDP", 1),
        ({"adapter": {}}, 40, "FSDP within each node", 4),
    ],
)
def test_what_a_rank_holds_of_a_model_is_estimated_by_how_it_is_divided(
    training: dict[str, object], billions: float, division: str, ranks: int
) -> None:
    settings, whole = several(**training), of_weights(billions)
    plan = plan_of(settings, 1000)
    config = transformers.GPT2Config(n_layer=40)

    spread = spread_of(settings, plan, whole, GPU)
    each = shared(settings, config, whole, GPU)(plan)

    assert (str(spread.division), spread.ranks) == (division, ranks)
    assert each.optimiser == whole(plan).optimiser // (1 if plan.adapter else ranks)
    # beside its share a rank holds two of the forty layers
    expected = whole(plan).weights * (1 if ranks == 1 else 1 / ranks + 2 / 40)
    assert each.weights == pytest.approx(expected, rel=1e-6)
    assert each.activations == whole(plan).activations
