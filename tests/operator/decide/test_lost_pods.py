"""Attempts whose pod is gone while their Job does not say how they ended: never waited for without a bound."""

from dataclasses import replace

import pytest
from support.results import DONE

from lmft_operator.domain.facts import WarningEvent, job_facts, pod_facts

MARGIN = 30


def job(world, **facts):
    world.jobs["eli5-1"] = replace(world.jobs["eli5-1"], touched=world.now, **facts)


def never_seen(world):
    """The operator came up when the pod was gone; the Job's controller has counted it and forgotten the Job."""
    job(world, failed_pods=1)


def never_seen_though_it_began(world):
    world.run_pod()
    world.pods.clear()
    job(world)


def gone_without_a_mark(world):
    world.run_pod()
    world.pod(gone=True, gone_at=world.now)


def gone_before_it_began(world):
    world.pod(gone=True, gone_at=world.now)
    job(world, failed_pods=1)


@pytest.mark.parametrize("happens", [never_seen, never_seen_though_it_began, gone_without_a_mark, gone_before_it_began])
def test_a_job_that_never_says_how_it_ended_is_replaced(World, happens):
    world = World()
    world.step()
    happens(world)
    assert world.step().look_again == pytest.approx(MARGIN)
    assert (world.reason, "The pod is gone" in world.message) == ("Interrupted", True)
    assert world.later(MARGIN - 1).create is None
    world.later(1)
    assert (list(world.jobs), world.status.attempts[0].reason) == (["eli5-2"], "Interrupted")
    assert "left no result" in world.status.attempts[0].message
    assert world.status.failures is None


def test_a_job_that_says_it_in_time_is_believed(World):
    world = World()
    world.step()
    gone_without_a_mark(world)
    world.later(MARGIN - 1)
    world.close_job(complete=True)
    world.step()
    assert (world.status.attempts[0].reason, len(world.created)) == ("Completed", 2)


def test_a_pod_that_is_there_is_waited_for_whatever_its_job_says(World):
    world = World()
    world.step()
    world.run_pod()
    job(world, failed_pods=1)
    world.later(10_000)
    assert world.reason == "Training"
    world.end_pod(said=DONE)
    assert world.reason == "Completed"


def test_a_pod_that_a_quota_forbids_is_waited_for_for_ever(World):
    world = World()
    world.step()
    job(world)
    world.later(10_000)
    world.warnings["job-1"] = WarningEvent("FailedCreate", "exceeded quota: gpus", world.now)
    world.step()
    assert (world.reason, list(world.jobs)) == ("QuotaExceeded", ["eli5-1"])


def test_running_time_counts_though_nobody_saw_its_end(World):
    world = World(resources={"gpusPerNode": 1}, preparation="Inline")
    world.step()
    world.run_pod()
    world.now += 3600
    world.pods.clear()
    world.jobs.clear()
    world.step()
    assert (world.status.usage.seconds, world.status.usage.gpu_seconds) == (3600, 3600)


BODY = {
    "metadata": {
        "name": "eli5-1", "uid": "u", "namespace": "team-a", "resourceVersion": "1074",
        "managedFields": [{"time": "2026-11-21T08:00:00Z"}, {"time": "2026-11-21T09:00:00Z"}, {}],
    },
    "status": {"failed": 1, "ready": 0, "terminating": 0, "uncountedTerminatedPods": {}},
}  # fmt: skip


def test_a_job_that_its_controller_forgot_is_known_by_its_counts():
    facts = job_facts(BODY)
    assert (facts.failed_pods, facts.finished, facts.touched) == (1, False, 1_795_251_600.0)


def test_a_container_that_could_not_be_started_did_not_run_since_1970():
    ended = {"exitCode": 128, "reason": "StartError", "startedAt": "1970-01-01T00:00:00Z"}
    facts = pod_facts(BODY | {"status": {"containerStatuses": [{"name": "job", "state": {"terminated": ended}}]}})
    assert (facts.started, facts.exit_code) == (None, 128)
