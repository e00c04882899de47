"""Ranks stop together, and any number of them goes on from what they saved."""

import json
import shutil
from array import array
from pathlib import Path
from typing import Any

import pytest
from support.forked import TERM, complete, outcome, run_folder, toy_spec
from support.ranks import complete_ranks, end_ranks, start_ranks

INTERRUPTED = 75


def losses(home: Path, name: str = "toy") -> "array[float]":
    """The loss of every step."""
    [file] = (run_folder(home, name) / "checkpoints").glob("*/*/*/lmft_losses.f64")
    found = array("d")
    found.frombytes(file.read_bytes())
    return found


def stopped(home: Path, spec: dict[str, Any], size: int, signalled: int) -> int:
    """A run of several ranks of which one is asked to stop in its second epoch; the step that they saved."""
    children = start_ranks(home, spec, size, pods=size, patch=slow_steps)
    for line in children[0].events():
        if line.startswith("step") and int(line.split()[1]) > int(line.split()[2]) // 2:
            break
    children[signalled].signal(TERM)
    codes = end_ranks(children)
    assert codes == [INTERRUPTED] * size, "\n".join(child.log.read_text()[-2000:] for child in children)
    # then they have saved the same step, and rank 0 alone has stored it
    [newest] = {child.result["checkpoint"]["step"] for child in children if child.result.get("checkpoint")}
    manifests = sorted((run_folder(home) / "checkpoints").glob("*/*/MANIFEST.json"))
    assert manifests[-1].parent.name == f"step-{newest:08d}"
    assert {child.result["counts"]["steps"] for child in children} == {newest}
    return int(newest)


def slow_steps(teller: Any) -> None:
    """A patch: a step takes long enough for a signal to arrive in it."""
    import time

    from lmft_job.training.trainer import RecipeTrainer

    original = RecipeTrainer.training_step

    def step(self: Any, *args: Any, **options: Any) -> Any:
        time.sleep(0.03)
        return original(self, *args, **options)

    RecipeTrainer.training_step = step  # type: ignore[method-assign]


@pytest.mark.parametrize("signalled", [0, 1])
def test_a_stopped_run_goes_on_bit_equal_on_as_many_ranks(signalled: int, tmp_path: Path) -> None:
    # given a run with dropout on two ranks that nothing disturbed
    spec = toy_spec(tmp_path)
    complete_ranks(tmp_path, spec, 2, name="calm")
    # when one of two pods is told to stop in a run like it
    stopped(tmp_path, spec, 2, signalled)
    # and the run goes on
    first, _ = complete_ranks(tmp_path, spec, 2, 2)
    # then it ends as if nothing had happened
    assert first.said("resumed from step")
    assert outcome(tmp_path) == outcome(tmp_path, "calm")


def test_any_number_of_ranks_goes_on(tmp_path: Path) -> None:
    # given a run without dropout, stopped in its second epoch, and what it would have given
    spec = toy_spec(tmp_path)
    spec["model"]["fromConfig"] |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    complete_ranks(tmp_path, spec, 2, name="calm")
    step = stopped(tmp_path, spec, 2, 1)
    expected = list(losses(tmp_path, "calm"))
    kept = tmp_path / "kept"
    shutil.copytree(run_folder(tmp_path), kept)
    for size in (1, 4):
        shutil.rmtree(run_folder(tmp_path))
        shutil.copytree(kept, run_folder(tmp_path))
        # when another number of ranks goes on, with the same rows in a step
        if size == 1:
            complete(tmp_path, spec, 2)
        else:
            complete_ranks(tmp_path, spec, size, 2)
        # then no step differs
        assert list(losses(tmp_path)) == pytest.approx(expected, abs=1e-5)
        assert json.loads((run_folder(tmp_path) / "run.json").read_text())["effectiveBatch"] == 8
        report = json.loads((run_folder(tmp_path) / "report.json").read_text())
        assert report["training"]["resumedFromStep"] == step


def test_more_ranks_than_rows_of_a_step_are_refused(tmp_path: Path) -> None:
    spec = toy_spec(tmp_path, training={"batchSize": 2, "perDeviceBatchSize": 2})

    children = start_ranks(tmp_path, spec, 3)

    assert end_ranks(children) == [2, 2, 2]
    assert {child.result["reason"] for child in children} == {"InvalidSpec"}
    assert "at most 2 processes" in children[0].result["message"]
