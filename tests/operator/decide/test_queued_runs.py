"""A queue controller such as Kueue admits Jobs, takes their place away, and gives it back: an attempt has one pod."""

from dataclasses import replace

import pytest
from support.results import stopped

from lmft_operator.decide.next import QUEUE_SECONDS
from lmft_operator.domain.facts import PodFacts


def queued(World, **spec):
    world = World(podTemplate={"labels": {"kueue.x-k8s.io/queue-name": "gpus"}}, **spec)
    world.step()
    return world


def takes_the_place_away(world):
    world.jobs["eli5-1"] = replace(world.jobs["eli5-1"], suspended=True)


def admits_again(world):
    world.jobs["eli5-1"] = replace(world.jobs["eli5-1"], suspended=False, started=world.now)


def second_pod(world, **facts):
    pod = PodFacts("pod-1b", "pod-1b", "1", "0123456789ab", 1, "Running", world.now, started=world.now)
    world.pods["pod-1b"] = replace(pod, **facts)


def test_a_run_whose_place_is_taken_away_saves_and_queues_anew(World):
    world = queued(World, maxRetries=0)
    world.run_pod()
    takes_the_place_away(world)
    assert world.step().delete_jobs == ("eli5-1",)
    assert (world.reason, world.status.attempts[0].end_time) == ("Interrupted", None)
    assert "preempted the run" in world.message
    world.end_pod(code=75, said=stopped(3), deleted=world.now + 120)
    assert (world.reason, list(world.jobs)) == ("Interrupted", []), "first those that wait in the queue"
    assert "Retrying after 5 s." in world.message
    world.later(QUEUE_SECONDS)
    assert (world.reason, list(world.jobs), world.status.failures) == ("Queued", ["eli5-2"], None)
    assert world.status.checkpoint.step == 3


def test_time_in_the_queue_is_no_running_time(World):
    world = queued(World, activeDeadlineSeconds=100)
    world.run_pod()
    world.now += 10
    takes_the_place_away(world)
    world.step()
    world.end_pod(code=75, said=stopped(3), deleted=world.now + 120)
    world.later(10_000)
    assert (world.succeeded, world.status.usage.seconds) == ("Unknown", 10)
    assert world.run_pod(2).look_again == pytest.approx(90)


def test_an_ended_pod_whose_end_is_not_settled_uses_no_more_time(World):
    world = queued(World, activeDeadlineSeconds=100)
    world.run_pod()
    world.now += 10
    world.pod(phase="Failed", finished=world.now, gone=True, gone_at=world.now)
    world.later(20)
    assert (world.reason, world.status.attempts[0].end_time) == ("Interrupted", None)
    assert world.decide().look_again == pytest.approx(10)  # patience with its Job; its time stands still


def test_a_place_given_back_unseen_brings_no_second_pod_into_the_attempt(World):
    world = queued(World, resources={"gpusPerNode": 1}, preparation="Inline")
    world.run_pod()
    world.now += 1000
    admits_again(world)
    world.pod(phase="Failed", exit_code=75, finished=world.now, gone=True)
    world.now += 5
    second_pod(world)
    assert "eli5-1" in world.step().delete_jobs
    assert (world.status.usage.seconds, world.status.usage.gpu_seconds) == (1000, 1000)
    assert (world.status.attempts[0].reason, len(world.created)) == ("Interrupted", 1)  # it waits for the second to end
    second_pod(world, exit_code=75, phase="Failed")
    world.step()
    assert list(world.jobs) == ["eli5-2"]


def test_a_second_pod_is_known_for_one_when_nobody_has_seen_the_first_go(World):
    world = queued(World)
    world.run_pod()
    world.now += 1000
    del world.pods["pod-1"]
    admits_again(world)
    second_pod(world)
    world.step()
    world.later(31)
    assert (world.status.attempts[0].reason, "eli5-1" in world.jobs) == ("Interrupted", False)
    assert world.status.usage.seconds >= 1000


def test_a_pod_that_never_began_leaves_the_job_its_place_in_the_queue(World):
    world = queued(World)
    world.pod(waiting_reason="ImagePullBackOff")
    world.step()
    takes_the_place_away(world)
    world.pod(gone=True, gone_at=world.now, deleted=world.now)
    assert world.later(1000).delete_jobs == ()
    assert world.reason == "Queued"
    admits_again(world)
    world.later(1000)
    assert (world.reason, list(world.jobs)) == ("Pending", ["eli5-1"])
    second_pod(world)
    world.step()
    assert world.reason == "Training"


def test_a_job_whose_pod_vanished_with_its_node_is_not_admitted_beside_its_successor(World):
    world = queued(World)
    world.run_pod()
    world.pod(deleted=world.now + 120)
    world.later(151)
    world.later(QUEUE_SECONDS)
    assert list(world.jobs) == ["eli5-2"]
