"""Attempts of several pods: what ends they come to, by the order of causes; what they wait for; what they cost."""

from typing import Any

import pytest
from support.results import DONE
from support.several_nodes import several

from lmft_api.reasons import Reason
from lmft_api.wire.result import Result, encode
from lmft_operator.domain.facts import WarningEvent
from lmft_operator.settings import parse

GRACE, MARGIN = 120, 30
ECHO = Result(reason=Reason.PEERS_MISSING, message="Rank 1 is gone.")
UNREACHABLE = Result(reason=Reason.NETWORK_UNREACHABLE, message="The name eli5-2-0.lmft-01234567-2 is not resolved.")
DIVERGED = Result(reason=Reason.DIVERGED, message="Rank 3: the loss is NaN at step 7.")
INVALID = Result(reason=Reason.INVALID_SPEC, message="spec.training.batchSize: too few rows")
FAILED = Result(reason=Reason.STORAGE_UNAVAILABLE, message="Rank 2: the bucket does not answer.")
STOPPED = Result(reason=Reason.INTERRUPTED, message="Stopped by SIGTERM after step 9.")


def running(world, nodes: int = 4, attempt: int = 2):
    for index in range(nodes):
        world.pod(attempt, index, phase="Running", started=world.now, node=f"node-{index}")
    world.step()


def ended(world, index: int, code: int, said: Result | None = None, attempt: int = 2, **facts: Any) -> None:
    words = encode(said).decode() if said is not None else ""
    values = {"phase": "Failed" if code else "Succeeded", "finished": world.now} | facts
    world.pod(attempt, index, exit_code=code, log_tail=words, **values)


def by_others(world) -> dict[str, Any]:
    """Somebody, or the Job's controller, deletes a pod before it ends."""
    return {"deleted": world.now - 1 + GRACE, "asked_to_end": world.now - 1}


def test_preparation_is_one_pod_on_a_cpu_and_training_several(World):
    world = several(World, gpusPerNode=2)
    assert [(plan.stage.value, plan.nodes, plan.gpus) for plan in world.created] == [("Prepare", 1, 0), ("Train", 4, 2)]
    assert [(a.nodes, a.gpus_per_node) for a in world.status.attempts] == [(None, None), (4, 2)]


@pytest.mark.parametrize(
    ("spec", "plan"),
    [
        ({}, ("Prepare", 1)),
        ({"podTemplate": {"image": "own"}}, ("All", 2)),
        ({"podTemplate": {"image": "own"}, "preparation": "Auto"}, ("Prepare", 1)),
    ],
)
def test_one_pod_prepares_for_several_unless_an_image_of_its_own_has_nothing_to_prepare(World, spec, plan):
    world = World(resources={"nodes": 2}, **{"preparation": "Inline"} | spec)
    world.settings = parse("policy: {maxNodes: 2}")
    world.step()
    assert [(made.stage.value, made.nodes) for made in world.created] == [plan]


def test_a_run_on_one_node_is_as_it_was(World):
    world = World(resources={"nodes": 1})
    world.step()
    assert [(plan.stage.value, plan.nodes) for plan in world.created] == [("All", 1)]
    assert world.decide().delete_services == ()


# What each pod came to, by its number: code, result, and whether it was deleted before it ended.
Ends = dict[int, tuple[int, Result | None, bool]]
CAUSES: dict[str, tuple[Ends, str, str]] = {
    "all done": ({0: (0, DONE, False), 1: (0, None, False), 2: (0, None, False), 3: (0, None, False)}, "Completed", ""),
    "index 0 is done, whatever its peers do": (
        {0: (0, DONE, False), 1: (8, ECHO, False), 2: (3, INVALID, False), 3: (137, None, False)}, "Completed", "",
    ),
    "a final code before all but that": (
        {0: (8, ECHO, False), 1: (6, FAILED, False), 2: (75, STOPPED, True), 3: (5, DIVERGED, False)},
        "Diverged", "Pod pod-2-3 on node-3: Rank 3: the loss is NaN",
    ),
    "a container that ended by itself before those that were stopped": (
        {0: (75, STOPPED, True), 1: (8, ECHO, False), 2: (6, FAILED, False), 3: (8, ECHO, False)},
        "StorageUnavailable", "Pod pod-2-2 on node-2: Rank 2: the bucket",
    ),
    "the network is a cause": (
        {0: (8, ECHO, False), 1: (8, ECHO, False), 2: (8, UNREACHABLE, False), 3: (75, STOPPED, True)},
        "NetworkUnreachable", "Pod pod-2-2 on node-2: The name",
    ),
    "a pod that was deleted explains that its peers miss it": (
        {0: (8, ECHO, False), 1: (75, STOPPED, True), 2: (8, ECHO, False), 3: (8, ECHO, False)},
        "Interrupted", "Pod pod-2-1 on node-1: ",
    ),
    "all save and stop": (
        {0: (75, STOPPED, True), 1: (75, STOPPED, False), 2: (75, STOPPED, False), 3: (75, STOPPED, False)},
        "Interrupted", "Pod pod-2 on node-0: Stopped by SIGTERM after step 9.",
    ),
    "nothing but echoes": (
        dict.fromkeys(range(4), (8, ECHO, False)), "PeersMissing", "Pod pod-2 on node-0: Rank 1 is gone.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CAUSES)
@pytest.mark.parametrize("backwards", [False, True])
def test_the_end_of_an_attempt_goes_by_the_order_of_causes_not_of_clocks(World, name, backwards):
    ends, reason, message = CAUSES[name]
    world = several(World)
    running(world)
    for index in sorted(ends, reverse=backwards):
        world.now += 1
        code, said, stopped = ends[index]
        ended(world, index, code, said, **(by_others(world) if stopped else {}))
    world.step()
    last = world.status.attempts[1]
    assert (last.reason, last.end_time is not None) == (reason, True)
    assert (last.message or "").startswith(message)
    assert world.succeeded == ("True" if reason == "Completed" else "False" if reason == "Diverged" else "Unknown")


def test_a_container_that_ended_first_and_was_deleted_then_ended_by_itself(World):
    world = several(World)
    running(world)
    ended(world, 2, 6, FAILED, deleted=world.now + 5 + GRACE, asked_to_end=world.now + 5)
    for index in (0, 1, 3):
        ended(world, index, 75, STOPPED, **by_others(world))
    world.step()
    assert world.status.attempts[1].reason == "StorageUnavailable"


def test_a_disruption_comes_before_what_merely_stopped(World):
    world = several(World)
    running(world)
    for index in range(4):
        drained = {"disruption": "Preempted by a pod of higher priority."} if index == 3 else {}
        ended(world, index, 75, STOPPED, **by_others(world), **drained)
    world.step()
    assert world.status.attempts[1].message == "Pod pod-2-3 on node-3: Preempted by a pod of higher priority."
    assert world.status.failures is None


def test_the_others_have_their_grace_and_no_longer(World):
    # given a pod that ended by itself, while its peers save or hang
    world = several(World)
    running(world)
    ended(world, 1, 6, FAILED)
    assert world.step().look_again == pytest.approx(GRACE + MARGIN)
    world.later(GRACE + MARGIN - 1)
    assert world.status.attempts[1].end_time is None

    # when the grace is over, then the attempt is judged without them, and they are stopped
    world.later(1)
    assert world.status.attempts[1].reason == "StorageUnavailable"
    assert "eli5-2" not in world.jobs


def test_a_peer_that_is_done_first_ends_nothing(World):
    world = several(World, 2)
    running(world, 2)
    ended(world, 1, 0)
    world.later(10_000)
    assert (world.status.attempts[1].end_time, world.reason) == (None, "Training")


def test_a_job_that_was_deleted_waits_for_its_pods(World):
    world = several(World, 2)
    running(world, 2)
    world.jobs.clear()
    world.pod(2, 0, deleted=world.now + GRACE, asked_to_end=world.now)
    world.pod(2, 1, deleted=world.now + GRACE, asked_to_end=world.now)
    world.step()
    assert world.status.attempts[1].end_time is None
    ended(world, 0, 75, STOPPED)
    ended(world, 1, 75, STOPPED)
    world.step()
    assert world.status.attempts[1].reason == "Interrupted"


def test_a_pod_that_starts_only_when_another_has_given_up_waiting_for_it_was_missing(World):
    world = several(World, 2)
    world.pod(2, 0, phase="Running", started=world.now, node="node-0")
    world.pod(2, 1, unschedulable="0/1 nodes are available: 1 Insufficient cpu.", unschedulable_since=world.now)
    world.later(600)
    ended(world, 0, 8, Result(reason=Reason.PEERS_MISSING, message="One of 2 has not come."))

    world.now += 2
    ended(world, 1, 75, STOPPED, node="node-0", started=world.now, unschedulable="", **by_others(world))
    world.step()

    last = world.status.attempts[1]
    assert last.reason == "PeersMissing"
    assert last.message.endswith("has not come. Pod pod-2-1 on node-0 started only when another had given up.")
    assert (world.status.interruptions, world.status.failures) == (None, None)


def test_a_node_that_vanishes_holds_an_attempt_no_longer_than_its_grace(World):
    world = several(World, 2)
    running(world, 2)
    ended(world, 0, 8, ECHO)
    world.pod(2, 1, deleted=world.now + GRACE, asked_to_end=world.now)
    world.later(GRACE + MARGIN)
    last = world.status.attempts[1]
    assert (last.reason, "did not end within its grace period" in last.message) == ("Interrupted", True)


def test_gpu_seconds_are_those_of_all_pods(World):
    world = several(World, 2, gpusPerNode=4)
    before = world.status.usage.seconds
    world.pod(2, 0, phase="Running", started=world.now, node="a")
    world.now += 10
    world.pod(2, 1, phase="Running", started=world.now, node="b")
    world.step()
    world.now += 100
    ended(world, 1, 0)
    world.now += 5
    ended(world, 0, 0, DONE)
    world.step()
    assert (world.status.usage.seconds - before, world.status.usage.gpu_seconds) == (115, (115 + 100) * 4)


def test_its_service_goes_with_the_attempt(World):
    world = several(World, 2)
    running(world, 2)
    assert world.decide().delete_services == ()
    ended(world, 0, 0, DONE)
    ended(world, 1, 0)
    assert world.decide().delete_services == (2,)


# ---- pods that do not come


def test_a_pod_that_no_node_takes_is_what_all_wait_for(World):
    world = several(World, 3)
    world.pod(2, 0, phase="Running", started=world.now, node="a")
    world.pod(2, 1, waiting_reason="ContainerCreating", node="b")
    world.pod(2, 2, unschedulable="0/2 nodes are available: 2 Insufficient cpu.")
    world.step()
    assert world.reason == "Unschedulable"
    assert world.message.startswith("Pod pod-2-2 of 3: None of 2 nodes can take the pod")


def test_a_pod_that_a_quota_forbids_is_what_the_others_wait_for(World):
    world = several(World, 2)
    world.pod(2, 0, phase="Running", started=world.now, node="a")
    world.step()
    assert (world.reason, world.message) == ("Pending", "Waiting for the pod of attempt 2 to start.")
    world.warnings["job-2"] = WarningEvent("FailedCreate", "exceeded quota: gpus", world.now)
    world.later(100)
    assert (world.reason, "exceeded quota" in world.message) == ("QuotaExceeded", True)


def alone(world, attempt: int = 2, **peer: Any) -> None:
    """Index 0 waits in vain for its peer and gives up; the Job's controller deletes the peer."""
    world.pod(attempt, 0, phase="Running", started=world.now, node="a")
    world.pod(attempt, 1, **peer)
    world.step()
    world.now += 600
    ended(world, 0, 8, Result(reason=Reason.PEERS_MISSING, message="1 of 2 pods came within 600 s."), attempt)
    world.pod(attempt, 1, deleted=world.now + GRACE, asked_to_end=world.now, gone=True, gone_at=world.now)
    world.step()


def test_peers_that_no_node_took_are_missed_with_a_back_off_and_without_counting_as_failures(World):
    world = several(World, 2)
    alone(world, unschedulable="0/2 nodes are available: 2 Insufficient cpu.")
    last = world.status.attempts[1]
    assert (last.reason, world.status.failures, world.reason) == ("PeersMissing", None, "PeersMissing")
    assert "Pod pod-2-1 has not started: 0/2 nodes are available" in last.message
    assert "Retrying after 10 s." in world.message
    world.later(10)
    alone(world, 3, unschedulable="0/2 nodes are available: 2 Insufficient cpu.")
    assert "Retrying after 20 s." in world.message


def test_peers_that_had_a_node_and_did_not_come_are_failures_and_the_cause_at_the_end(World):
    world = several(World, 2)
    world.spec["maxRetries"] = 1
    alone(world, node="b", waiting_reason="ContainerCreating")
    assert (world.reason, world.status.failures) == ("PeersMissing", 1)
    world.later(10)
    alone(world, 3, node="b", waiting_reason="ContainerCreating")
    assert (world.reason, world.status.failures) == ("RetriesExhausted", 2)
    assert "PeersMissing: Pod pod-3 on a: 1 of 2 pods came within 600 s." in world.message


def test_without_retries_too_the_reason_at_the_end_is_one_of_the_ends(World):
    world = several(World, 2)
    world.spec["maxRetries"] = 0
    alone(world, node="b")
    assert (world.succeeded, world.reason) == ("False", "RetriesExhausted")
    assert "PeersMissing: " in world.message


# ---- fewer nodes

FULL = "0/3 nodes are available: 3 Insufficient cpu."


def squeezed(World, nodes: int = 4, placed: int = 2, **elastic: Any):
    """A run of which some pods have a node, and the others none."""
    world = several(World, nodes, elastic=elastic)
    for index in range(nodes):
        has = index < placed
        world.pod(
            2, index, unschedulable="" if has else FULL, unschedulable_since=None if has else world.now,
            **({"node": f"node-{index}", "phase": "Running", "started": world.now} if has else {}),
        )  # fmt: skip
    return world


def vanish(world) -> None:
    for name, pod in list(world.pods.items()):
        if pod.attempt == 2:
            ended(world, pod.index, 75, STOPPED, **by_others(world)) if pod.started else world.pods.pop(name)
    world.step()


@pytest.mark.parametrize(("placed", "least", "taken"), [(3, 1, 3), (2, 1, 2), (0, 1, 1), (1, 2, 2), (0, 3, 3)])
def test_after_the_wait_the_next_attempt_takes_the_nodes_that_there_are(World, placed, least, taken):
    world = squeezed(World, 4, placed, minNodes=least, waitSeconds=300)
    assert world.step().look_again == pytest.approx(300)
    world.later(299)
    assert (world.reason, "eli5-2" in world.jobs) == ("Unschedulable", True)

    world.later(1)
    assert "eli5-2" not in world.jobs
    assert f"goes on with {taken}" in world.message
    vanish(world)
    world.step()
    assert (world.status.attempts[1].reason, world.status.failures) == ("Interrupted", None)
    assert (world.created[-1].nodes, world.created[-1].attempt) == (taken, 3)
    assert world.status.attempts[2].nodes == taken


def test_without_elastic_they_are_waited_for(World):
    world = several(World, 2)
    world.pod(2, 0, phase="Running", started=world.now, node="a")
    world.pod(2, 1, unschedulable=FULL, unschedulable_since=world.now)
    world.later(100_000)
    assert (world.reason, "eli5-2" in world.jobs) == ("Unschedulable", True)


def test_an_attempt_that_starts_for_another_reason_tries_the_wanted_number_again(World):
    world = squeezed(World, 4, 3, minNodes=1)
    world.later(600)
    vanish(world)
    world.step()
    running(world, 3, attempt=3)
    for index in range(3):
        ended(world, index, 75, STOPPED, attempt=3)
    world.step()
    world.step()
    assert [plan.nodes for plan in world.created] == [1, 4, 3, 4]


def test_peers_that_give_up_before_the_wait_is_over_lead_to_fewer_nodes_too(World):
    world = several(World, 2, elastic={"waitSeconds": 86_400})
    alone(world, unschedulable=FULL, unschedulable_since=world.now)
    world.later(10)
    assert (world.created[-1].nodes, world.created[-1].attempt) == (1, 3)


def test_a_change_of_the_number_takes_effect_with_the_next_attempt_and_stops_none(World):
    world = several(World, 2)
    running(world, 2)
    world.spec["resources"] = {"nodes": 3}
    world.generation += 1
    world.step()
    assert (world.reason, [plan.nodes for plan in world.created]) == ("Training", [1, 2])
    ended(world, 0, 75, STOPPED)
    ended(world, 1, 75, STOPPED)
    world.step()
    world.step()
    assert [plan.nodes for plan in world.created] == [1, 2, 3]


def test_suspend_and_resume_with_another_number_of_nodes(World):
    world = several(World, 2)
    running(world, 2)
    world.spec["suspend"] = True
    world.step()
    assert (world.reason, "eli5-2" in world.jobs) == ("Suspended", False)
    ended(world, 0, 75, STOPPED, **by_others(world))
    ended(world, 1, 75, STOPPED, **by_others(world))
    world.step()
    assert (world.reason, world.status.attempts[1].reason) == ("Suspended", "Suspended")
    world.spec |= {"suspend": False, "resources": {"nodes": 1}}
    world.step()
    assert [(plan.stage.value, plan.nodes) for plan in world.created][-1] == ("Train", 1)
