"""TensorBoard's own reader sees every step of a run once, whatever happened to its attempts."""

import json
from pathlib import Path
from typing import Any

import pytest
from cluster.eventually import eventually
from support.forked import KILL, attempt, run_folder, toy_spec
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lmft_api.wire.layout import METRICS, TENSORBOARD
from lmft_job.errors import InterruptedRunError
from lmft_job.storage import open_store
from lmft_job.trackers.points import Point
from lmft_job.trackers.tensorboard import TensorBoard


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Step and value of every scalar, by tag, as TensorBoard shows them."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_a_killed_run_that_resumes_has_every_step_once(tmp_path: Path) -> None:
    # given a run that is killed after some of its steps are in event files
    spec: dict[str, Any] = toy_spec(
        tmp_path,
        training={"epochs": 400},
        checkpoint={"everySteps": 3},
        evaluation={"everySteps": 20},
        reportTo={"tensorBoard": True},
    )
    child = attempt(tmp_path, spec)
    child.until("checkpoint 3")
    folder = run_folder(tmp_path) / TENSORBOARD
    eventually(lambda: folder.is_dir() and "train/loss" in read(folder), "event files")
    child.signal(KILL)
    assert child.wait() == -KILL
    left = {path.name for path in folder.iterdir()}

    # when the next attempt resumes, replaces what was left, and is stopped
    second = attempt(tmp_path, spec, 2)
    second.until("step")
    eventually(lambda: not left & {path.name for path in folder.iterdir()}, "files of the second attempt alone")
    second.signal(15)
    second.wait()

    # then they hold each step once, as metrics.jsonl does
    shown, rows = read(folder), (run_folder(tmp_path) / METRICS).read_text().splitlines()
    losses = {row["step"]: row["loss"] for row in map(json.loads, rows) if "loss" in row}
    steps = [step for step, _ in shown["train/loss"]]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= second.result["counts"]["resumedFromStep"]
    for step, loss in shown["train/loss"][: len(losses)]:
        assert loss == pytest.approx(losses[step], rel=1e-6)
    assert [step for step, _ in shown["eval/loss"]][:2] == [0, 20][: len(shown["eval/loss"])]


def test_a_later_attempt_alone_writes_the_files(tmp_path: Path) -> None:
    def require() -> None:
        raise InterruptedRunError("attempt 2 of this run has begun")

    store = open_store((tmp_path / "run").as_uri())
    tracker = TensorBoard(store, tmp_path, 1, require)
    tracker.open()

    with pytest.raises(InterruptedRunError):
        tracker.send([Point(1, 0.0, {"train/loss": 1.0})])
    assert store.list(f"{TENSORBOARD}/") == []


def test_parts_become_rarer_the_longer_a_run_takes(tmp_path: Path) -> None:
    tracker = TensorBoard(open_store((tmp_path / "run").as_uri()), tmp_path, 1, lambda: None)
    pauses = []
    for part in range(60):
        tracker.send([Point(part, 0.0, {"train/loss": 1.0})])
        pauses.append(tracker.pause())

    assert (pauses[0], pauses[-1]) == (2.0, 6.0)
    assert [step for step, _ in read(tmp_path / "run" / TENSORBOARD)["train/loss"]] == list(range(60))
