"""Runs whose texts share rows without masks, from the manifest to the report: the figures are those with masks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.comparing import conversations, losses, report, sure
from support.forked import complete, killed_at_random_steps, outcome
from support.ranks import complete_ranks
from support.varlen import varlen_on_cpu

FIGURES = ("baselineEvalLoss", "evalLoss", "trainerEvalLoss", "evalLossStandardError", "perplexityStandardError")


def documents(home: Path, **sections: Any) -> dict[str, Any]:
    """Documents that share blocks; rows divide evenly into batches neither in training nor in evaluation."""
    return sure(home, dataset={"isolateDocuments": True}, **sections)


KINDS: dict[str, Any] = {"documents": documents, "conversations": conversations}


def as_on_a_gpu(teller: Any, *, compiled: bool = False) -> None:
    """In the process that trains: the attention is chosen, with a stand-in for its kernel; graphs are told."""
    from lmft_job.stages import inputs
    from lmft_job.training.acceleration import selection, varlen_attention

    def counted(graph: Any, examples: Any) -> Any:
        teller.tell("graph", [tuple(one.shape) for one in examples if isinstance(one, torch.Tensor)][-1:])
        return graph.forward

    def choose(model: Any, *_: Any, shared: int | None, **__: Any) -> Any:
        teller.tell("shared", shared)
        if compiled:
            selection.compile_layers(model)
        return selection.Acceleration(varlen=True, compiled=compiled, width=shared or 0 if compiled else 0)

    selection.BACKEND = counted
    varlen_attention.varlen_kernel = lambda: varlen_on_cpu
    inputs.choose_acceleration = choose  # type: ignore[assignment]


def compiled_as_on_a_gpu(teller: Any) -> None:
    """The same, with compiled layers."""
    as_on_a_gpu(teller, compiled=True)


def require_equal(home: Path, name: str = "toy") -> None:
    """Losses, counts and figures of a run, and of the one named ``plain``."""
    assert list(losses(home, name)) == pytest.approx(list(losses(home, "plain")), abs=1e-5)
    ours, theirs = report(home, name), report(home, "plain")
    assert ours["training"]["tokens"] == theirs["training"]["tokens"]
    for figure in FIGURES:
        assert ours["results"][figure] == pytest.approx(theirs["results"][figure], rel=1e-4, abs=1e-5)
    assert ours["results"]["samples"] == theirs["results"]["samples"]


@pytest.mark.parametrize("kind", KINDS)
def test_losses_counts_and_figures_are_those_with_masks_and_compiled_layers_see_one_shape(
    kind: str, tmp_path: Path
) -> None:
    # given a run with masks, of rows that divide evenly neither in training nor in evaluation
    spec = KINDS[kind](tmp_path, training={"perDeviceBatchSize": 3, "gradientAccumulationSteps": 2, "epochs": 2})
    plain = complete(tmp_path, spec, name="plain")
    assert not plain.said("shared")
    # when it is repeated without masks, then nothing else differs
    child = complete(tmp_path, spec, patch=as_on_a_gpu)
    require_equal(tmp_path)
    assert child.said(f"shared {128 if kind == 'conversations' else 16}")
    # when layers and loss are compiled too, they are so without and with gradients, never again, and nothing differs
    child = complete(tmp_path, spec, name="compiled", patch=compiled_as_on_a_gpu)
    require_equal(tmp_path, "compiled")
    began = next(number for number, line in enumerate(child.lines) if line.startswith("step 1 "))
    graphs = [number for number, line in enumerate(child.lines) if line.startswith("graph")]
    assert 2 <= len(graphs) <= 6
    assert max(graphs) < began


def test_a_run_that_is_killed_ends_bit_equal(tmp_path: Path) -> None:
    spec = conversations(tmp_path, training={"epochs": 3, "perDeviceBatchSize": 2}, checkpoint={"everySteps": 2})
    complete(tmp_path, spec, name="calm", patch=as_on_a_gpu)
    killed_at_random_steps(tmp_path, spec, 1, patch=as_on_a_gpu)

    last = complete(tmp_path, spec, 2, patch=as_on_a_gpu)

    assert last.said("resumed from step")
    assert outcome(tmp_path) == outcome(tmp_path, "calm")


def test_ranks_fill_their_passes_and_count_no_token_of_them(tmp_path: Path) -> None:
    spec = conversations(tmp_path, training={"perDeviceBatchSize": 7, "epochs": 2})
    complete(tmp_path, spec, name="plain")
    spec["training"] |= {"perDeviceBatchSize": 4, "batchSize": 7}

    complete_ranks(tmp_path, spec, 2, patch=compiled_as_on_a_gpu)

    require_equal(tmp_path)
