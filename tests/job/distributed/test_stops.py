"""Ranks stop together, and any number of them goes on from what they saved."""

import json
import shutil
from pathlib import Path

import pytest
from support.comparing import losses, report, sure
from support.forked import outcome, run_folder, toy_spec
from support.ranks import complete_ranks, end_ranks, start_ranks, stopped


@pytest.mark.parametrize("signalled", [0, 1])
def test_a_stopped_run_goes_on_bit_equal_on_as_many_ranks(signalled: int, tmp_path: Path) -> None:
    # given a run with dropout on two ranks that nothing disturbed
    spec = toy_spec(tmp_path)
    complete_ranks(tmp_path, spec, 2, name="calm")
    # when one of two pods is told to stop in a run like it
    stopped(tmp_path, spec, 2, signalled, at=15)
    # and the run goes on
    first, _ = complete_ranks(tmp_path, spec, 2, 2)
    # then it ends as if nothing had happened
    assert first.said("resumed from step")
    assert outcome(tmp_path) == outcome(tmp_path, "calm")


def test_any_number_of_ranks_goes_on(tmp_path: Path) -> None:
    # given a run without dropout, stopped in its second epoch, and what it would have given
    spec = sure(tmp_path)
    complete_ranks(tmp_path, spec, 2, name="calm")
    step = stopped(tmp_path, spec, 2, 1, at=15)
    expected = list(losses(tmp_path, "calm"))
    kept = tmp_path / "kept"
    shutil.copytree(run_folder(tmp_path), kept)
    for size in (1, 4):
        shutil.rmtree(run_folder(tmp_path))
        shutil.copytree(kept, run_folder(tmp_path))
        # when another number of ranks goes on, with the same rows in a step, is stopped, and two go on again
        again = stopped(tmp_path, spec, size, 0, at=step + 2, number=2)
        complete_ranks(tmp_path, spec, 2, 3)
        # then no step differs
        assert list(losses(tmp_path)) == pytest.approx(expected, abs=1e-5)
        assert json.loads((run_folder(tmp_path) / "run.json").read_text())["effectiveBatch"] == 8
        resumes = report(tmp_path)["training"]["resumes"]
        assert [point["step"] for point in resumes] == [step, again]


def test_more_ranks_than_rows_of_a_step_are_refused(tmp_path: Path) -> None:
    spec = toy_spec(tmp_path, training={"batchSize": 2, "perDeviceBatchSize": 2})

    children = start_ranks(tmp_path, spec, 3)

    assert end_ranks(children) == [2, 2, 2]
    assert {child.result["reason"] for child in children} == {"InvalidSpec"}
    assert "at most 2 processes" in children[0].result["message"]
