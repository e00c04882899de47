"""What must not be seen while faults come down: each rule with a story that breaks it and one that does not."""

from typing import Any

import pytest
from cluster.chaos.history import Live, RunHistory, live_attempts, two_at_once

NOW = 1_800_000_000.0
NOW_TEXT = "2027-01-15T08:00:00Z"


def job(attempt: int, uid: str = "", **status: Any) -> dict[str, Any]:
    metadata = {
        "labels": {"lmfinetune.dev/attempt": str(attempt)},
        "uid": uid or f"job-{attempt}",
        "creationTimestamp": "2027-01-15T07:00:00Z",
    }
    return {"metadata": metadata, "status": status}


def pod(
    attempt: int, state: str = "running", phase: str = "Running", of: str = "", uid: str = "", **metadata: Any
) -> dict[str, Any]:
    about = {
        "labels": {"lmfinetune.dev/attempt": str(attempt)},
        "uid": uid or f"pod-{attempt}",
        "creationTimestamp": "2027-01-15T07:00:01Z",
        "ownerReferences": [{"uid": of or f"job-{attempt}"}],
    }
    status = {"phase": phase, "containerStatuses": [{"state": {state: {}}}]}
    return {"metadata": about | metadata, "status": status}


def live(
    attempt: int, uid: str = "", pod: bool = True, fenced: float | None = None, job: str = "", index: int = 0
) -> Live:
    return Live(attempt, uid or str(attempt), pod, fenced, job, index)


FAILED = {"conditions": [{"type": "Failed", "status": "True"}]}


@pytest.mark.parametrize(
    ("jobs", "pods", "expected"),
    [
        ([job(1)], [], [1]),
        ([job(1)], [pod(1)], [1]),
        ([job(1)], [pod(1, "terminated")], []),
        ([job(1, failed=1)], [], []),
        ([job(1, uncountedTerminatedPods={"failed": ["x"]})], [], []),
        ([job(1, **FAILED), job(2)], [pod(1, "terminated", "Failed"), pod(2)], [2]),
        ([job(1, **FAILED), job(2)], [pod(1), pod(2)], [1, 2]),
        ([job(2)], [pod(1, deletionTimestamp=NOW_TEXT), pod(2)], [1, 2]),
        ([job(1, "a"), job(1, "b")], [], [1, 1]),
        ([job(1, "a"), job(1, "b")], [pod(1, of="a")], [1, 1]),
        ([job(1, "a"), job(1, "b")], [pod(1, of="a", uid="x"), pod(1, of="b", uid="y")], [1, 1]),
        ([job(1, "a"), job(1, "b")], [pod(1, "terminated", of="a")], [1]),
        ([job(1)], [pod(1, uid="x"), pod(1, uid="y")], [1, 1]),
        ([job(1)], [pod(1, uid="x"), pod(1, "terminated", uid="y")], [1]),
    ],
)
def test_an_attempt_lives_in_each_pod_that_runs_and_in_each_job_that_may_make_one(jobs, pods, expected) -> None:
    assert [found.attempt for found in live_attempts(jobs, pods, NOW + 40)] == expected


def test_of_one_attempt_what_was_made_last_is_the_newest() -> None:
    jobs = [job(1, "new")]
    jobs[0]["metadata"]["creationTimestamp"] = "2027-01-15T07:30:00Z"
    pods = [pod(1, of="old", uid="x")]
    assert [found.uid for found in live_attempts(jobs, pods, NOW)] == ["x", "new"]
    assert two_at_once(live_attempts(jobs, pods, NOW), [], margin=30)


@pytest.mark.parametrize(
    ("before", "now", "wrong"),
    [
        ([], [], False),
        ([], [live(1)], False),
        ([], [live(1), live(2)], True),
        ([], [live(1), live(2, pod=False)], True),
        ([], [live(1, fenced=10.0), live(2)], True),
        ([], [live(1, fenced=31.0), live(2)], False),
        ([], [live(1, fenced=31.0), live(2), live(3)], True),
        ([live(1)], [live(1, pod=False), live(2)], False),
        ([live(1, pod=False), live(2)], [live(1, pod=False), live(2)], True),
        ([], [live(1, "x"), live(1, "y")], True),
        ([], [live(1, "x", fenced=31.0), live(1, "y")], False),
        ([], [live(1, "a", pod=False), live(1, "b", pod=False)], False),
        ([live(1, "a", pod=False), live(1, "b", pod=False)], [live(1, "a", pod=False), live(1, "b")], True),
        ([live(1, "o", pod=False), live(1, "a")], [live(1, "a", pod=False), live(1, "b")], False),
        # The pods of an attempt on several nodes.
        ([], [live(1, "a", job="j"), live(1, "b", job="j", index=1)], False),
        ([], [live(1, "a", job="j"), live(1, "b", job="j")], True),
        ([], [live(1, "a", job="j"), live(1, "b", job="i", index=1)], True),
        ([], [live(1, "o", job="i", index=1), live(2, "a", job="j"), live(2, "b", job="j", index=1)], True),
        ([], [live(1, "o", fenced=31.0, job="i"), live(2, "a", job="j"), live(2, "b", job="j", index=1)], False),
    ],
)
def test_only_a_pod_that_outlives_its_grace_period_may_live_beside_its_successor(before, now, wrong) -> None:
    assert bool(two_at_once(now, before, margin=30)) is wrong


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


@pytest.mark.parametrize(
    ("seen", "resumed", "wrong"),
    [
        ([live(1, pod=False), live(2)], 40, True),
        ([live(1, fenced=10.0), live(2)], 40, True),
        ([live(1, fenced=31.0), live(2)], 40, True),
        ([live(1, fenced=31.0), live(2)], 60, False),
        ([live(1, fenced=31.0), live(2)], 80, False),
        ([live(1, pod=False), live(2)], 60, True),
    ],
)
def test_only_what_a_fenced_attempt_wrote_beside_its_successor_may_be_passed_over(seen, resumed, wrong) -> None:
    # given attempt 1, which has written 80 when attempt 2 has begun, and which 3 follows
    history = RunHistory(every=20)
    history.cluster_seen(seen, margin=30)
    history.storage_seen(NOW - 90, frozenset({(1, 40), (1, 60)}), done=False)
    history.storage_seen(NOW - 20, frozenset({(1, 60), (1, 80)}), done=False)
    history.reached(3, 100)
    # when 3 goes on from a checkpoint
    third = {"number": 3, "startTime": NOW_TEXT, "resumedFromStep": resumed}
    history.violations.clear()
    history.repeated([{"number": 1}, {"number": 2, "startTime": "2027-01-15T07:59:00Z"}, third])
    # then it is the newest one but what 1 wrote late
    assert bool(history.violations) is wrong, history.violations


def test_an_attempt_that_was_fenced_excuses_no_later_one() -> None:
    history = RunHistory(every=20)
    history.cluster_seen([live(1, fenced=99.0), live(2)], margin=30)
    history.storage_seen(NOW - 20, frozenset({(2, 40), (2, 60)}), done=False)
    third = {"number": 3, "startTime": NOW_TEXT, "resumedFromStep": 40}
    history.repeated([{"number": 1}, {"number": 2, "startTime": "2027-01-15T07:59:00Z"}, third])
    assert history.violations == ["attempt 3 went on from 40, though checkpoint attempt-0002/step-00000060 was there"]


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
