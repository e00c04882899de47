"""What a run waits for, by what Kubernetes says of its Job and its pod, and for how long that is accepted."""

from dataclasses import replace

import pytest

from lmft_api.reasons import Reason
from lmft_operator.decide.waiting import TOLD
from lmft_operator.domain.facts import WarningEvent, job_facts
from lmft_operator.domain.kueue import workload_of

START = 1_800_000_000.0

PENDING = [
    ({"unschedulable": "0/3 nodes have a free nvidia.com/gpu"}, Reason.UNSCHEDULABLE, "nvidia.com/gpu"),
    ({"waiting_reason": "ImagePullBackOff", "waiting_message": "no such image"}, Reason.IMAGE_PULL_FAILED, "no such"),
    ({"waiting_reason": "ErrImageNeverPull"}, Reason.IMAGE_PULL_FAILED, "ErrImageNeverPull"),
    (
        {"waiting_reason": "CreateContainerConfigError", "waiting_message": 'secret "lmft-x" not found'},
        Reason.SECRET_NOT_FOUND,
        "lmft-x",
    ),
    ({"waiting_reason": "CreateContainerError", "waiting_message": "no disk"}, Reason.PENDING, "no disk"),
    ({"waiting_reason": "CreateContainerConfigError", "waiting_message": 'configmap "x" not found'}, Reason.PENDING,
     'configmap "x" not found. Create what it names'),
    ({"waiting_reason": "RunContainerError", "waiting_message": "exec format error"}, Reason.PENDING,
     "exec format error. If it stays so, look at the node's container runtime"),
    ({"waiting_reason": "CrashLoopBackOff", "waiting_message": "init container vault: exited with code 3"},
     Reason.PENDING, "exited with code 3. Look at that container: kubectl logs"),
    ({"waiting_reason": "ContainerCreating"}, Reason.PENDING, "Waiting for the pod"),
]  # fmt: skip
NOT_SET_UP = {
    "FailedMount": ("timed out waiting for the condition", "kubectl describe pvc"),
    "FailedAttachVolume": ("Multi-Attach error for volume", "kubectl get volumeattachments"),
    "FailedMapVolume": ("no block device", "kubectl describe pvc"),
    "FailedCreatePodSandBox": ("no address is left", "network plugin's pods"),
    "NetworkNotReady": ("network is not ready: cni plugin not initialized", "network plugin's pods"),
    "FailedPrepareDynamicResources": ("no allocation for claim gpu", "kubectl describe resourceclaim"),
    "FailedCreatePodContainer": ("no such cgroup", "container runtime"),
}


@pytest.mark.parametrize(("facts", "reason", "words"), PENDING)
def test_pending_is_explained_and_clears_by_itself(World, facts, reason, words):
    world = World()
    world.step()
    world.pod(**facts)
    world.step()
    assert (world.succeeded, world.reason, world.status.phase) == ("Unknown", reason, "Pending")
    assert words in world.message
    world.run_pod()
    assert world.reason == "Training"


def test_a_quota_is_named_from_the_jobs_event(World):
    world = World()
    world.step()
    world.warnings["job-1"] = WarningEvent("FailedCreate", 'pods "x" is forbidden: exceeded quota: gpus', world.now)
    world.step()
    assert (world.reason, "exceeded quota: gpus" in world.message) == ("QuotaExceeded", True)
    world.pod()
    world.step()
    assert world.reason == "Pending"


def test_a_missing_secret_is_named_from_the_pods_event(World):
    world = World()
    world.step()
    world.pod(waiting_reason="ContainerCreating")
    world.warnings["pod-1"] = WarningEvent(
        "FailedMount", 'MountVolume.SetUp failed: secret "lmft-s3" not found', world.now
    )
    world.step()
    assert (world.reason, "lmft-s3" in world.message) == ("SecretNotFound", True)


@pytest.mark.parametrize("reason", NOT_SET_UP)
def test_what_a_node_cannot_set_up_is_named_with_what_to_look_at(World, reason):
    said, remedy = NOT_SET_UP[reason]
    world = World()
    world.step()
    world.pod()
    world.warnings["pod-1"] = WarningEvent(reason, f"{said}.", world.now)
    world.step()
    assert (world.succeeded, world.reason, world.status.phase) == ("Unknown", "Pending", "Pending")
    assert world.message.startswith(f"{reason}: {said}. ")
    assert remedy in world.message
    # and it passes by itself
    world.pod(sandboxed=True)
    world.step()
    assert "Waiting for the pod of attempt 1" in world.message


def test_the_events_that_are_read_are_those_that_are_explained():
    assert {*NOT_SET_UP, "FailedCreate"} == TOLD


def test_a_job_of_another_controller_that_makes_no_pod_is_named(World):
    # given a policy that has handed the Job over, as a dispatcher to other clusters does
    body = {"metadata": {"name": "eli5-1", "namespace": "a", "uid": "job-1"}, "spec": {"managedBy": "example.com/far"}}
    facts = job_facts(body)
    world = World()
    world.step()
    [name] = world.jobs
    world.jobs[name] = replace(world.jobs[name], managed_by=facts.managed_by)
    world.step()
    assert (world.succeeded, world.reason) == ("Unknown", "AdmissionFailed")
    assert "has set its spec.managedBy to example.com/far" in world.message
    assert "Exempt the Jobs of LMFineTune" in world.message
    # and if that controller makes the pod after all, it is as any other
    world.run_pod()
    assert world.reason == "Training"


MOUNT = WarningEvent("FailedMount", 'secret "lmft-s3" not found', START)
SANDBOX = WarningEvent("FailedCreatePodSandBox", "no address is left", START)
QUOTA = WarningEvent("FailedCreate", 'pods "eli5-1-x7k2p" is forbidden: exceeded quota: gpus', START)
GONE = {"sandboxed": True}
EVENTS = [
    ("pod-1", MOUNT, {}, GONE, "SecretNotFound"),
    ("pod-1", SANDBOX, {}, GONE, "Pending"),
    ("job-1", QUOTA, None, {}, "QuotaExceeded"),
]


@pytest.mark.parametrize("remembered", [True, False], ids=["same operator", "operator started anew"])
@pytest.mark.parametrize(("about", "warning", "pod", "mended", "reason"), EVENTS)
def test_what_an_event_has_told_holds_until_its_cause_is_gone(World, about, warning, pod, mended, reason, remembered):
    world = World()
    world.step()
    if pod is not None:
        world.pod(**pod)
    world.warnings[about] = warning
    world.step()
    told, writes, events = world.message, world.writes, len(world.events)
    assert (world.reason, "Waiting for the pod" in told) == (reason, False)

    # when no Event comes any more, for client-go thins those that repeat, and the API server keeps them for an hour
    if not remembered:
        world.warnings.clear()
    for _ in range(30):
        world.later(300)
        assert (world.reason, world.message) == (reason, told)
    assert (world.writes, len(world.events)) == (writes, events)

    # then only the pod itself says that it has what it lacked
    world.pod(**mended)
    world.step()
    assert (world.reason, "Waiting for the pod of attempt 1" in world.message) == ("Pending", True)


def test_what_a_container_waited_for_is_over_when_its_state_says_so(World):
    world = World()
    world.step()
    world.pod(waiting_reason="CreateContainerError", waiting_message="no disk")
    world.step()
    world.pod(waiting_reason="ContainerCreating", waiting_message="")
    world.step()
    assert "Waiting for the pod of attempt 1" in world.message


def test_the_next_attempt_does_not_inherit_what_the_one_before_waited_for(World):
    world = World()
    world.step()
    world.pod()
    world.warnings["pod-1"] = MOUNT
    world.step()
    del world.jobs["eli5-1"]
    world.pod(gone=True)
    world.step()
    world.pod(2)
    world.step()
    assert (world.reason, world.message) == ("Pending", "Waiting for the pod of attempt 2 to start.")


def test_a_quota_that_stood_in_the_way_before_the_queue_admitted_the_job_anew_is_no_news(World):
    world = World(podTemplate={"labels": {"kueue.x-k8s.io/queue-name": "gpus"}})
    world.step()
    world.warnings["job-1"] = QUOTA
    world.close_job(started=START + 60)
    world.later(60)
    assert "exceeded quota" not in world.message


def test_what_the_queue_lacks_is_said_and_stays_when_its_event_is_gone(World):
    world = World(podTemplate={"labels": {"kueue.x-k8s.io/queue-name": "gpus"}})
    world.step()
    world.jobs["eli5-1"] = replace(world.jobs["eli5-1"], suspended=True)
    world.step()
    assert (world.reason, world.message) == ("Queued", "The Job waits, suspended, for its queue to admit it.")
    words = (
        "couldn't assign flavors to pod set main: insufficient unused quota for pods in flavor default, 1 more needed"
    )
    workload = workload_of(world.jobs["eli5-1"])
    world.warnings[workload] = WarningEvent("Pending", words, world.now)
    for _ in range(2):
        world.step()
        assert world.message == f"The Job waits, suspended, for its queue to admit it: {words}."
        world.warnings.clear()
    world.jobs["eli5-1"] = replace(world.jobs["eli5-1"], suspended=False, started=world.now)
    world.run_pod()
    assert world.reason == "Training"


def test_a_message_does_not_change_with_each_pod_that_was_not_made(World):
    words = {}
    for name, before in (("x7k2p", ""), ("abcde", "(combined from similar events): ")):
        world = World()
        world.step()
        text = f'{before}Error creating: pods "eli5-1-{name}" is forbidden: exceeded quota: gpus'
        world.warnings["job-1"] = WarningEvent("FailedCreate", text, world.now)
        world.step()
        words[name] = world.message
    assert words["x7k2p"] == words["abcde"]
    assert 'pods "eli5-1-" is forbidden: exceeded quota: gpus' in words["abcde"]
