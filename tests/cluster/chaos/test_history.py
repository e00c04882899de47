"""What must not be seen while faults come down: each rule with a story that breaks it and one that does not."""

from typing import Any

import pytest
from cluster.chaos.history import Live, RunHistory, live_attempts, two_at_once

NOW = 1_800_000_000.0
NOW_TEXT = "2027-01-15T08:00:00Z"


def job(attempt: int, **status: Any) -> dict[str, Any]:
    return {"metadata": {"labels": {"lmfinetune.dev/attempt": str(attempt)}}, "status": status}


def pod(attempt: int, state: str = "running", phase: str = "Running", **metadata: Any) -> dict[str, Any]:
    labels = {"lmfinetune.dev/attempt": str(attempt)}
    status = {"phase": phase, "containerStatuses": [{"state": {state: {}}}]}
    return {"metadata": {"labels": labels, **metadata}, "status": status}


FAILED = {"conditions": [{"type": "Failed", "status": "True"}]}


@pytest.mark.parametrize(
    ("jobs", "pods", "live"),
    [
        ([job(1)], [], [1]),
        ([job(1)], [pod(1)], [1]),
        ([job(1)], [pod(1, "terminated")], []),
        ([job(1, failed=1)], [], []),
        ([job(1, uncountedTerminatedPods={"failed": ["x"]})], [], []),
        ([job(1, **FAILED), job(2)], [pod(1, "terminated", "Failed"), pod(2)], [2]),
        ([job(1, **FAILED), job(2)], [pod(1), pod(2)], [1, 2]),
        ([job(2)], [pod(1, deletionTimestamp=NOW_TEXT), pod(2)], [1, 2]),
    ],
)
def test_an_attempt_lives_while_its_pod_runs_or_its_job_may_make_one(jobs, pods, live) -> None:
    assert [attempt.attempt for attempt in live_attempts(jobs, pods, NOW + 40)] == live


@pytest.mark.parametrize(
    ("before", "live", "wrong"),
    [
        ([], [], False),
        ([], [Live(1)], False),
        ([], [Live(1), Live(2)], True),
        ([], [Live(1), Live(2, pod=False)], True),
        ([], [Live(1, fenced=10.0), Live(2)], True),
        ([], [Live(1, fenced=31.0), Live(2)], False),
        ([], [Live(1, fenced=31.0), Live(2), Live(3)], True),
        ([Live(1)], [Live(1, pod=False), Live(2)], False),
        ([Live(1, pod=False), Live(2)], [Live(1, pod=False), Live(2)], True),
    ],
)
def test_only_a_pod_that_outlives_its_grace_period_may_live_beside_its_successor(before, live, wrong) -> None:
    assert bool(two_at_once(live, before, margin=30)) is wrong


@pytest.mark.parametrize(
    ("before", "after", "done", "wrong"),
    [
        ([(1, 20)], [(1, 20), (1, 40)], False, False),
        ([(1, 20), (1, 40)], [(1, 40), (1, 60)], False, False),
        ([(1, 20), (1, 40)], [(2, 60), (2, 80)], False, False),
        ([(1, 20), (1, 40)], [(1, 40)], False, True),
        ([(1, 20), (1, 40)], [(1, 20)], True, True),
        ([(1, 20), (1, 40)], [(1, 40)], True, False),
        ([(1, 20)], [], False, True),
    ],
)
def test_a_checkpoint_stays_until_newer_ones_take_its_place(before, after, done, wrong) -> None:
    history = RunHistory(every=20, keep=2)
    history.storage_seen(1.0, frozenset(before), done=False)
    history.storage_seen(2.0, frozenset(after), done)
    assert bool(history.violations) is wrong


@pytest.mark.parametrize(
    ("resumed", "lost", "words"),
    [
        (60, 15, []),
        (40, 35, ["checkpoint attempt-0001/step-00000060 was there"]),
        (20, 55, ["repeats 55 steps", "was there"]),
        (None, None, ["repeats 75 steps", "was there"]),
    ],
)
def test_an_attempt_goes_on_from_the_newest_checkpoint_and_repeats_no_more_than_two_intervals(
    resumed, lost, words
) -> None:
    history = RunHistory(every=20)
    history.storage_seen(NOW - 20, frozenset({(1, 40), (1, 60)}), done=False)
    history.reached(1, 75)
    history.reached(2, 80)
    attempt = {"number": 2, "startTime": NOW_TEXT, "resumedFromStep": resumed, "lostSteps": lost}
    assert history.repeated([{"number": 1}, attempt]) == 75 - (resumed or 0)
    assert len(history.violations) == len(words)
    assert all(any(word in told for told in history.violations) for word in words)


def test_an_attempt_that_ended_before_it_trained_repeats_nothing() -> None:
    history = RunHistory(every=20)
    history.reached(1, 75)
    history.reached(3, 80)
    history.resumed[3] = 60
    assert history.repeated([{"number": 1}, {"number": 2}, {"number": 3}]) == 15
    assert history.violations == []


def test_an_attempt_that_reads_the_report_of_a_finished_run_repeats_nothing() -> None:
    history = RunHistory(every=20)
    history.storage_seen(NOW - 5, frozenset({(1, 100)}), done=True)
    attempts = [{"number": 1}, {"number": 2, "startTime": NOW_TEXT}]
    history.reached(2, 100)
    assert history.repeated(attempts) == 0
    assert history.violations == []


def test_a_status_that_tells_another_start_than_the_log_is_found_out() -> None:
    history = RunHistory(every=20)
    history.resumed[2] = 40
    history.repeated([{"number": 1}, {"number": 2, "resumedFromStep": 20}])
    assert history.violations == ["attempt 2 went on from 40, its status says 20"]
