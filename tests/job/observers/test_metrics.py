"""``metrics.jsonl`` while a run trains: lines of every step and evaluation, whole at any moment, and nothing twice."""

import json
import threading
from array import array
from pathlib import Path
from typing import Any

import pytest
from cluster.eventually import eventually
from support.forked import KILL, attempt, run_folder, toy_spec

from lmft_api.wire.layout import METRICS
from lmft_api.wire.report import EvaluationRow
from lmft_job.errors import InterruptedRunError
from lmft_job.observers.live_metrics import LiveMetrics, pause_after
from lmft_job.observers.metrics import Lines, StepLog
from lmft_job.storage import open_store

BEFORE = EvaluationRow(step=0, epoch=0.0, eval_loss=8.0)


def log_of(first: int, last: int) -> StepLog:
    log = StepLog()
    for step in range(first, last + 1):
        log.update(1e-3, 0.5)
        log.step_done(step, step / 4, 1000.0)
    return log


def numbers(lines: bytes) -> list[tuple[int, bool]]:
    """The step of each line, and whether it is an evaluation."""
    return [(line["step"], "evaluation" in line) for line in map(json.loads, lines.splitlines())]


def test_lines_that_are_written_one_after_another_are_those_of_the_whole_file() -> None:
    losses = array("d", [5.0, 4.0, 3.0, 2.0])
    rows = [BEFORE, EvaluationRow(step=2, epoch=0.5, eval_loss=4.0), EvaluationRow(step=4, epoch=1.0, eval_loss=2.0)]
    whole = Lines().more(losses, log_of(1, 4), rows)

    lines, parts = Lines(), []
    for steps, evaluations in ((0, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 3), (4, 3)):
        parts.append(lines.more(losses[:steps], log_of(1, steps), rows[lines.evaluations : evaluations]))

    assert b"".join(parts) == whole
    assert numbers(whole) == [(0, True), (1, False), (2, False), (2, True), (3, False), (4, False), (4, True)]


def test_steps_that_an_older_release_trained_have_their_loss_alone() -> None:
    written = Lines().more(array("d", [5.0, 4.0, 3.0]), log_of(3, 3), [BEFORE])

    steps = [json.loads(line) for line in written.splitlines()[1:]]
    assert steps[:2] == [{"step": 1, "epoch": None, "loss": 5.0}, {"step": 2, "epoch": None, "loss": 4.0}]
    assert steps[2]["learningRate"] == 1e-3


@pytest.mark.parametrize(
    ("size", "in_bucket", "seconds"), [(0, False, 2), (0, True, 30), (1 << 20, True, 30), (150 << 20, False, 600)]
)
def test_a_large_file_is_stored_less_often(size: int, in_bucket: bool, seconds: float) -> None:
    assert pause_after(size, in_bucket=in_bucket) == seconds


def test_a_later_attempt_alone_writes_the_file_and_no_trouble_with_it_ends_the_run(tmp_path: Path) -> None:
    # given an attempt whose fence lets it write until a later one begins
    begun = threading.Event()

    def require() -> None:
        if begun.is_set():
            raise InterruptedRunError("attempt 2 of this run has begun")

    def more(lines: Lines, before: EvaluationRow | None) -> bytes:
        return lines.more(array("d", [5.0]), log_of(1, 1), [before] if before and not lines.evaluations else [])

    (tmp_path / "scratch").mkdir()
    store = open_store((tmp_path / "run").as_uri())
    with LiveMetrics(store, tmp_path / "scratch", require) as live:
        live.before = BEFORE
        live.follow(more)
        eventually(lambda: store.get_bytes(METRICS), "the file")
    assert numbers(store.get_bytes(METRICS) or b"") == [(0, True), (1, False)]

    # when it has, and has written its own
    begun.set()
    store.put_bytes(METRICS, b"theirs\n")
    (tmp_path / "more").mkdir()
    with LiveMetrics(store, tmp_path / "more", require) as live:
        live.follow(more)
        live.end()

    # then that stays
    assert store.get_bytes(METRICS) == b"theirs\n"


def test_a_killed_run_leaves_its_lines_and_the_next_attempt_repeats_none(tmp_path: Path) -> None:
    # given a run that is killed in training, when the file is there already
    spec: dict[str, Any] = toy_spec(tmp_path, training={"epochs": 400}, checkpoint={"everySteps": 3})
    child = attempt(tmp_path, spec)
    child.until("checkpoint 3")
    path = run_folder(tmp_path) / METRICS
    eventually(lambda: path.exists() and (3, False) in numbers(path.read_bytes()), "step 3 in the file")
    child.signal(KILL)
    assert child.wait() == -KILL
    left = numbers(path.read_bytes())
    assert left[:2] == [(0, True), (1, False)]

    # when the next attempt resumes, and stops early at a signal
    second = attempt(tmp_path, spec, 2)
    second.until("step")
    second.signal(15)
    second.wait()

    # then the file holds every step once, up to the last one
    steps = [step for step, evaluation in numbers(path.read_bytes()) if not evaluation]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= second.result["counts"]["resumedFromStep"]
