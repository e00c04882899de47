"""Compiled layers see passes of one shape: an epoch's uneven end and evaluations make no further graph."""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from support.comparing import losses, report, sure
from support.forked import complete
from support.ranks import complete_ranks

from lmft_job.data.rows import FILLER, filled
from lmft_job.tasks.base import IGNORED


def test_a_batch_is_filled_with_rows_that_have_no_target() -> None:
    batch = {"input_ids": torch.tensor([[1, 2], [3, 4]]), "labels": torch.tensor([[1, 2], [3, 4]])}

    whole = filled(batch, 2)
    short = filled(batch, 5)

    assert whole is batch
    assert short["input_ids"].tolist() == [[1, 2], [3, 4], [1, 2], [1, 2], [1, 2]]
    assert short["labels"].tolist() == [[1, 2], [3, 4], *[[IGNORED] * 2] * 3]
    assert len(short[FILLER]) == 3


def compiled_as_on_a_gpu(teller: Any) -> None:
    """In the process that trains: layers and loss are compiled, by a backend that computes as before and tells."""
    from lmft_job.stages import inputs
    from lmft_job.training.acceleration import selection

    def counted(graph: Any, examples: Any) -> Any:
        teller.tell("graph", [tuple(one.shape) for one in examples if isinstance(one, torch.Tensor)][-1:])
        return graph.forward

    def choose(model: Any, *_: Any, **__: Any) -> Any:
        selection.compile_layers(model)
        return selection.Acceleration(packed=True, compiled=True)

    selection.BACKEND = counted
    inputs.choose_acceleration = choose


@pytest.mark.parametrize("task", ["CausalLM", "MaskedLM"])
def test_over_uneven_epochs_and_evaluations_no_graph_is_made_after_the_first_evaluation_and_the_first_step(
    task: str, tmp_path: Path
) -> None:
    # given rows that divide evenly neither in training nor in evaluation
    spec = sure(tmp_path, task=task, training={"perDeviceBatchSize": 7, "epochs": 3})
    plain = complete(tmp_path, spec, name="plain")

    child = complete(tmp_path, spec, patch=compiled_as_on_a_gpu)

    # then it was compiled without and with gradients, never again, and nothing else differs
    began = next(number for number, line in enumerate(child.lines) if line.startswith("step 1 "))
    graphs = [number for number, line in enumerate(child.lines) if line.startswith("graph")]
    assert len(graphs) >= 2
    assert max(graphs) < began
    assert list(losses(tmp_path)) == pytest.approx(list(losses(tmp_path, "plain")), abs=1e-5)
    ours, theirs = report(tmp_path), report(tmp_path, "plain")
    assert ours["training"]["tokens"] == theirs["training"]["tokens"]
    for figure in ("baselineEvalLoss", "evalLoss", "trainerEvalLoss", "evalLossStandardError"):
        assert ours["results"][figure] == pytest.approx(theirs["results"][figure], abs=1e-5)
    assert ours["results"]["samples"] == theirs["results"]["samples"]
    assert not plain.said("graph")


def divided_by_layers_and_compiled(teller: Any) -> None:
    """The same, with each layer's weights divided among the ranks by themselves, small as they are."""
    from lmft_job.stages.ranks import place

    place.divide = functools.partial(place.divide, at_once=1)
    compiled_as_on_a_gpu(teller)


@pytest.mark.parametrize(
    ("parallelism", "patch"), [("DDP", compiled_as_on_a_gpu), ("FSDP", divided_by_layers_and_compiled)]
)
def test_ranks_fill_their_passes_too_and_count_no_token_of_them(parallelism: str, patch: Any, tmp_path: Path) -> None:
    spec = sure(tmp_path, training={"perDeviceBatchSize": 7, "epochs": 2})
    complete(tmp_path, spec, name="plain")
    spec["training"]["perDeviceBatchSize"] = 4
    spec["training"]["batchSize"] = 7

    spec["training"]["parallelism"] = parallelism

    first, _ = complete_ranks(tmp_path, spec, 2, patch=patch)

    began = next(number for number, line in enumerate(first.lines) if line.startswith("step 1 "))
    graphs = [number for number, line in enumerate(first.lines) if line.startswith("graph")]
    assert len(graphs) >= 3
    assert max(graphs) < began
    assert list(losses(tmp_path)) == pytest.approx(list(losses(tmp_path, "plain")), abs=1e-5)
    assert report(tmp_path)["training"]["tokens"] == report(tmp_path, "plain")["training"]["tokens"]
    assert report(tmp_path)["results"]["evalLoss"] == pytest.approx(
        report(tmp_path, "plain")["results"]["evalLoss"], abs=1e-5
    )
