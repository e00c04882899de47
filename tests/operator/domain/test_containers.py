"""Pods with containers that admission put into them: ours is the one that counts, and the others hold nothing up."""

from dataclasses import replace
from typing import Any

import pytest
from support.results import DONE, stopped

from lmft_operator.domain.facts import job_facts, pod_facts

MARGIN = 30
METADATA = {"name": "p", "uid": "p", "resourceVersion": "1", "namespace": "team-a"}
RUNNING = {"running": {"startedAt": "2027-01-15T08:00:00Z"}}
OURS = {"name": "job", "state": RUNNING}


def ended(code: int, **more: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "finishedAt": "2027-01-15T08:10:00Z", **more}}


def pod(phase: str = "Running", **status: Any):
    return pod_facts({"metadata": METADATA, "spec": status.pop("spec", {}), "status": {"phase": phase, **status}})


# ---- whose state it is


@pytest.mark.parametrize("name", ["a-mesh", "z-logs"])
@pytest.mark.parametrize("state", [RUNNING, ended(0), ended(1), {"waiting": {"reason": "ImagePullBackOff"}}])
def test_what_another_container_does_is_not_what_the_job_does(name, state):
    statuses = sorted([{"name": name, "state": state}, OURS], key=lambda status: status["name"])
    facts = pod(containerStatuses=statuses)
    assert (facts.exit_code, facts.started is not None, facts.waiting_reason) == (None, True, "")
    statuses = [{"name": name, "state": state}, {"name": "job", "state": ended(5, message="NaN")}]
    facts = pod(containerStatuses=statuses)
    assert (facts.exit_code, facts.log_tail, facts.ended) == (5, "NaN", True)
    assert (facts.over, facts.running_others) == (False, name if state is RUNNING else "")


def test_gpus_and_image_are_those_of_our_container_wherever_it_stands():
    limits = {"limits": {"nvidia.com/gpu": "1"}}
    mesh = {"name": "a-mesh", "image": "mesh", "resources": {"limits": {"example.com/nic": "4"}}}
    containers = [mesh, {"name": "job", "image": "mirror/job:1", "resources": limits}]
    facts = job_facts({"metadata": METADATA, "spec": {"template": {"spec": {"containers": containers}}}})
    assert (facts.gpus, facts.image) == (1, "mirror/job:1")


# ---- containers that stay


@pytest.mark.parametrize("code", [0, 5, 1, 75])
def test_a_pod_that_another_container_keeps_up_is_removed_with_its_job(World, code):
    world = World()
    world.step()
    world.run_pod()
    # when ours ends and the pod goes on
    said = DONE if code == 0 else stopped(7) if code == 75 else "boom"
    decision = world.end_pod(code=code, said=said, phase="Running", running_others="istio-proxy")
    over = code in (0, 5)
    assert (decision.delete_jobs, len(world.created)) == ((), 1)
    assert world.status.ended is over

    # then it may end by itself for a while, and then its Job is deleted
    assert world.later(MARGIN - 1).delete_jobs == ()
    assert world.decide().look_again == pytest.approx(1)
    if not over:
        assert "pod-1, which istio-proxy keeps up" in world.message
    assert world.later(1).delete_jobs == ("eli5-1",)

    # and the next attempt has the GPU to itself
    world.pod(deleted=world.now + 120)
    assert world.step().create is None
    world.pod(phase="Failed")
    world.later(1)
    assert len(world.created) == (1 if over else 2)


def test_a_pod_of_ours_alone_keeps_its_job_however_late_a_busy_kubelet_says_that_it_is_over(World):
    world = World()
    world.step()
    world.run_pod()
    world.end_pod(code=0, said=DONE, phase="Running")

    assert world.later(10 * MARGIN).delete_jobs == ()
    assert world.status.ended


def test_a_pod_that_ends_in_time_keeps_its_job_and_its_log(World):
    world = World()
    world.step()
    world.run_pod()
    world.end_pod(said=DONE, phase="Running", running_others="shipper")
    world.later(5)
    world.pod(phase="Succeeded")
    assert world.later(10 * MARGIN).delete_jobs == ()


def test_a_pod_that_nobody_can_end_does_not_hold_the_run_for_ever(World):
    world = World()
    world.step()
    world.run_pod()
    world.end_pod(code=1, said="boom", phase="Running", running_others="istio-proxy")
    world.jobs.clear()
    world.later(1000)
    assert [plan.attempt for plan in world.created] == [1, 2]


# ---- init containers


def held(reason: str, message: str = "", **more: Any) -> list[dict[str, Any]]:
    return [{"name": "vault", "state": {"waiting": {"reason": reason, "message": message}}, **more}]


WAITING_OURS = [{"name": "job", "state": {"waiting": {"reason": "PodInitializing"}}}]
HELD = [
    (held("ImagePullBackOff", "no such image"), "ImagePullFailed", "init container vault: no such image"),
    (held("ErrImagePull", "denied"), "ImagePullFailed", "init container vault: denied"),
    (held("CreateContainerConfigError", 'secret "v" not found'), "SecretNotFound", 'vault: secret "v" not found'),
    (
        held("CrashLoopBackOff", "back-off 40s", lastState=ended(3, message="no token")),
        "Pending",
        "CrashLoopBackOff: init container vault: back-off 40s; exited with code 3: no token",
    ),
    (held("PodInitializing"), "Pending", "Waiting for the pod"),
    ([{"name": "vault", "state": RUNNING}], "Pending", "Waiting for the pod"),
]


@pytest.mark.parametrize(("inits", "reason", "words"), HELD)
def test_an_init_container_that_cannot_start_is_named(World, inits, reason, words):
    world = World()
    world.step()
    facts = pod("Pending", initContainerStatuses=inits, containerStatuses=WAITING_OURS)
    world.pod(waiting_reason=facts.waiting_reason, waiting_message=facts.waiting_message)
    world.step()
    assert (world.reason, words in world.message) == (reason, True)


def test_an_init_container_that_fails_is_named_with_its_code_and_words(World):
    world = World()
    world.step()
    failed = [{"name": "fine", "state": ended(0)}, {"name": "vault", "state": ended(3, message="no token\n")}]
    facts = pod("Failed", initContainerStatuses=failed, containerStatuses=WAITING_OURS)
    world.pod(phase="Failed", init_failed=facts.init_failed)
    world.step()
    attempt = world.status.attempts[0]
    assert (attempt.reason, world.status.failures) == ("InternalError", 1)
    assert attempt.message == "Init container vault, which is not LMFineTune's, exited with code 3: no token."


def test_a_native_sidecar_that_is_killed_with_the_pod_is_not_what_failed():
    sidecar = {"spec": {"initContainers": [{"name": "mesh", "restartPolicy": "Always"}]}}
    facts = pod("Failed", initContainerStatuses=[{"name": "mesh", "state": ended(137)}], **sidecar)
    assert facts.init_failed == ""


# ---- what kubelet does not take


REJECTED = ["OutOfcpu", "OutOfnvidia.com/gpu", "OutOfephemeral-storage", "OutOfpods", "TopologyAffinityError"]
REJECTED += ["UnexpectedAdmissionError", "NodeAffinity", "AppArmor", "SysctlForbidden", "NodeShutdown", "Terminated"]
REJECTED += ["PodOSNotSupported", "PodLevelResourcesNotSupported", "SomethingThatALaterKubeletSays"]


@pytest.mark.parametrize("reason", REJECTED)
def test_a_pod_that_kubelet_does_not_take_is_tried_again_later_and_no_failure(World, reason):
    world = World(maxRetries=0)
    world.step()
    waits = []
    for attempt in range(1, 40):
        world.pod(attempt, phase="Failed", reason=reason, message="Pod was rejected: not today")
        waits.append(world.step().look_again)
        assert (world.succeeded, world.reason) == ("Unknown", "Interrupted")
        world.later(waits[-1])
    assert waits[:4] == [10, 20, 40, 80]
    assert max(waits) == 300
    last = world.status.attempts[-2]
    assert (last.reason, last.cause, world.status.failures) == ("Interrupted", reason, None)
    assert last.message == f"The node's kubelet rejected the pod. {reason}: Pod was rejected: not today."


def test_interruptions_are_counted_over_what_kubelet_did_not_take(World):
    world = World()
    world.step()
    for attempt in range(1, 24):
        if attempt % 2:
            world.pod(attempt, phase="Failed", reason="OutOfcpu")
            decision = world.step()
        else:
            decision = world.end_pod(attempt, code=75, said=stopped())
        if world.status.ended:
            break
        world.later(decision.look_again or 0)
    assert (world.reason, world.status.interruptions) == ("RetriesExhausted", 22)
    assert "Interrupted 11 times in a row" in world.message


STORAGE = [
    ('Container job exceeded its local ephemeral storage limit "100Mi". ', "a higher spec.resources.ephemeralStorage"),
    (
        "Pod ephemeral local storage usage exceeds the total limit of containers 100Mi. ",
        "a higher spec.resources.ephemeralStorage",
    ),
    ('Usage of EmptyDir volume "lmft-shm" exceeds the limit "64Mi". ', "spec.resources.sharedMemory"),
    ("The node was low on resource: ephemeral-storage. Container job was using 9Gi, request is 4Gi.", "node that has"),
]


@pytest.mark.parametrize(("message", "remedy"), STORAGE)
def test_an_eviction_for_disk_space_says_so_with_the_limit(World, message, remedy):
    world = World(maxRetries=0)
    world.step()
    world.run_pod()
    world.end_pod(code=137, reason="Evicted", message=message)
    attempt = world.status.attempts[0]
    assert (attempt.reason, world.status.failures) == ("Interrupted", None)
    assert attempt.message.startswith(f"Evicted: {message.strip()}")
    assert remedy in attempt.message


# ---- gates


def test_a_pod_that_scheduling_gates_hold_back_is_queued(World):
    gates = {"schedulingGates": [{"name": "kueue.x-k8s.io/topology"}, {"name": "example.com/check"}]}
    gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "Scheduling is blocked"}
    facts = pod("Pending", spec=gates, conditions=[gated])
    world = World()
    world.step()
    world.pods["pod-1"] = replace(world.pod(), gates=facts.gates, unschedulable=facts.unschedulable)
    world.step()
    assert (world.reason, world.status.phase) == ("Queued", "Pending")
    assert "kueue.x-k8s.io/topology, example.com/check" in world.message

    # and when they are gone, and the scheduler has not looked yet, it is as any other
    facts = pod("Pending", conditions=[gated])
    world.pods["pod-1"] = replace(world.pod(), gates=facts.gates, unschedulable=facts.unschedulable)
    world.step()
    assert (world.reason, world.message) == ("Pending", "Waiting for the pod of attempt 1 to start.")
