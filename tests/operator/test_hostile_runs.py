"""What tenants may do to the runs of their namespace, and clocks and databases to all: nobody else's run is hurt."""

from dataclasses import replace
from typing import Any

import pytest
from support.results import stopped

from lmft_api.reasons import Reason
from lmft_api.wire.result import Result
from lmft_api.wire.run_file import Stage
from lmft_operator.cluster.errors import RestoredError
from lmft_operator.domain.facts import JobFacts, Key
from lmft_operator.watch.cache import Cache

FORGED = 999_999_999


# ---- labels


def test_a_forged_attempt_label_takes_no_number_away(World: Any) -> None:
    # given a run, and a Job that somebody labelled as its attempt 999,999,999
    world = World()
    world.jobs["forged"] = JobFacts("forged", "job-f", "1", "0123456789ab", FORGED, Stage.ALL, world.now, 0)
    world.step()
    assert [plan.attempt for plan in world.created] == [1]
    # when its first attempt is interrupted
    world.run_pod()
    world.end_pod(code=75, said=stopped(1))
    # then the next one is the second, and the forged one none of its attempts
    assert [plan.attempt for plan in world.created] == [1, 2]
    assert [attempt.number for attempt in world.status.attempts] == [1, 2]


def test_the_next_attempt_is_above_those_that_storage_knows_of(World: Any) -> None:
    # given a cluster whose database forgot attempts 2 to 7
    world = World()
    world.step()
    world.run_pod()
    # when the job finds them in storage
    said = Result(reason=Reason.INTERRUPTED, message="attempt 7 of this run has begun", highest_attempt=7)
    world.end_pod(code=75, said=said)
    # then the operator continues above them
    assert [plan.attempt for plan in world.created] == [1, 8]
    assert [attempt.highest_attempt for attempt in world.status.attempts] == [7, None]


# ---- clocks


@pytest.mark.parametrize("moment", ["before the pod", "while it trains", "after its end", "while it waits to retry"])
def test_a_clock_that_jumps_ten_minutes_forward_and_back_costs_no_attempt(World: Any, moment: str) -> None:
    def life(jump: bool) -> list[tuple[int, str | None]]:
        world = World(maxRetries=1)

        def at(now: str) -> None:
            if jump and now == moment:
                world.later(600)
                world.later(-600)

        world.step()
        at("before the pod")
        world.run_pod()
        at("while it trains")
        world.end_pod(code=1, said="Traceback")
        at("while it waits to retry")
        world.later(900)
        world.run_pod(2)
        world.end_pod(attempt=2, code=0, said=Result(reason=Reason.COMPLETED, message="done"))
        at("after its end")
        world.later(60)
        assert world.reason == "Completed"
        return [(attempt.number, attempt.reason) for attempt in world.status.attempts]

    assert life(jump=True) == life(jump=False)


# ---- circles and crowds


def run(name: str, source: str | None, version: int = 1, **status: Any) -> dict[str, Any]:
    identity = {"namespace": "a", "name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}
    spec = {"resumeFrom": {"name": source}} if source else {}
    return {"metadata": identity, "spec": spec, "status": status}


def waiting_in_a_circle(*names: str) -> Cache:
    cache = Cache()
    for name, source in zip(names, (*names[1:], names[0]), strict=True):
        cache.run_seen(run(name, source))
    return cache


@pytest.mark.parametrize("length", [2, 3, 1_000])
def test_runs_that_wait_for_each_other_in_a_circle_are_refused_with_the_way_round(World: Any, length: int) -> None:
    names = [f"r{number}" for number in range(length)]
    cache = waiting_in_a_circle(*names)
    world = World(resumeFrom={"name": names[1]})
    world.source = cache.source(Key("a", names[0]), names[1])
    world.step()
    assert (world.succeeded, world.reason, world.created) == ("False", "InvalidSpec", [])
    way = {2: "r0 → r1 → r0", 3: "r0 → r1 → r2 → r0"}.get(length)
    way = way or "r0 → r1 → r2 → r3 → (992 more) → r996 → r997 → r998 → r999 → r0"
    assert f"spec.resumeFrom.name: these runs wait for each other: {way}; " in world.message
    # when one of them is changed, the one before it is looked at again
    cache.run_seen(run(names[-1], None, version=2))
    world.source = cache.source(Key("a", names[0]), names[1])
    world.step()
    assert (world.succeeded, world.reason) == ("Unknown", "Pending")


def test_a_run_before_a_circle_or_after_one_that_has_begun_just_waits() -> None:
    cache = waiting_in_a_circle("r0", "r1")
    cache.run_seen(run("before", "r0"))
    assert cache.source(Key("a", "before"), "r0").circle == ()
    # one that has begun waits for nobody: it knows what it started from
    cache.run_seen(run("r1", "r0", version=2, attempts=[{"number": 1, "job": "r1-1"}]))
    assert cache.source(Key("a", "r0"), "r1").circle == ()


def test_a_thousand_runs_that_wait_for_one_are_looked_at_when_it_has_news_for_them() -> None:
    cache = Cache()
    cache.run_seen(run("base", None))
    for number in range(1_000):
        cache.run_seen(run(f"r{number}", "base"))
        cache.source(Key("a", f"r{number}"), "base")
    # a step of its training is none
    cache.run_seen(run("base", None, version=2, progress={"step": 7}))
    assert cache.dependants(Key("a", "base")) == set()
    cache.run_seen(run("base", None, version=3, checkpoint={"step": 7, "uri": "s3://m/7", "time": "t"}))
    assert len(cache.dependants(Key("a", "base"))) == 1_000


# ---- databases


def test_a_database_that_was_restored_to_an_older_snapshot_is_noticed() -> None:
    cache = Cache()
    cache.listed("jobs", 500, cache.highest_listed("jobs"))
    cache.listed("jobs", 500, cache.highest_listed("jobs"))
    cache.listed("pods", 200, cache.highest_listed("pods"))  # kinds may lie in databases of their own
    with pytest.raises(RestoredError, match="version 300 after 500"):
        cache.listed("jobs", 300, cache.highest_listed("jobs"))


def test_a_run_of_an_older_version_than_was_seen_is_suspicious() -> None:
    cache = Cache()
    cache.run_seen(run("r", None, version=7))
    assert cache.newer_than(run("r", None, version=6))
    assert not cache.newer_than(run("r", None, version=7))
    made_again = run("r", None, version=6)
    made_again["metadata"]["uid"] = "another"
    assert not cache.newer_than(made_again)


# ---- what is not the run's


def test_a_job_in_another_namespace_does_not_hide_a_pod_whose_own_job_is_gone() -> None:
    cache = Cache()
    status = {"attempts": [{"number": 1, "job": "r-1"}]}
    cache.run_seen(run("r", None, **status))
    labels = {"lmfinetune.dev/run-uid": "uid-r", "lmfinetune.dev/attempt": "1"}

    def child(namespace: str, name: str, uid: str, kind: str, owner: str, owner_name: str) -> dict[str, Any]:
        owners = [{"kind": kind, "name": owner_name, "uid": owner, "controller": True}]
        identity = {"namespace": namespace, "name": name, "uid": uid, "resourceVersion": "2", "labels": labels}
        return {"metadata": identity | {"ownerReferences": owners}}

    # given a Job elsewhere that claims the run's UID and the name of its Job
    cache.job_seen(child("b", "r-1", "forged", "LMFineTune", "uid-r", "r"))
    # when the run's pod is shown, whose own Job was deleted before
    cache.pod_seen(child("a", "r-1-x", "pod-1", "Job", "job-1", "r-1"))
    seen = cache.observe(Key("a", "r"), 0.0)
    assert seen is not None
    assert ([job.uid for job in seen.jobs], [pod.uid for pod in seen.pods]) == ([], ["pod-1"])


def test_a_spec_that_is_not_read_is_an_invalid_one(World: Any) -> None:
    world = World()
    world.problems = ("spec: is 140,008 bytes as JSON, and at most 131,072 are read (SHA-256 abc)",)
    observed = world.observed()
    assert replace(observed.run, unread=world.problems[0]) != observed.run, "a change of it is seen"
    world.step()
    assert (world.reason, world.created) == ("InvalidSpec", [])
    assert "at most 131,072 are read" in world.message
