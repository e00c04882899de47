"""What happens to a run when its node is drained or lost, and when its storage is away for a while."""

from collections.abc import Iterator

import pytest
from cluster.eventually import eventually
from cluster.node.node import Node
from cluster.node.training import Folder, assert_same, reasons, toy


@pytest.fixture
def frail(release: Node) -> Iterator[Node]:
    """The node, which is whole again afterwards whatever happens."""
    yield release
    release.kubelet("start")
    release.storage("start")
    release.kubectl("uncordon", release.name)


def test_a_drained_run_waits_for_a_node_and_goes_on_from_its_last_step(frail, trainers, reference, s3) -> None:
    # given a run with a checkpoint
    run = trainers.apply("drained", toy())
    folder = Folder(s3, run)
    folder.checkpoint()

    # when its node is drained
    uid = run.body["metadata"]["uid"]
    frail.kubectl("drain", frail.name, "--ignore-daemonsets", "--delete-emptydir-data",
                  "--pod-selector", f"lmfinetune.dev/run-uid={uid}", "--timeout=60s")  # fmt: skip

    # then the next attempt is there at once and says what it waits for
    assert "unschedulable" in run.until("Unschedulable")["message"]
    first = run.status["attempts"][0]
    assert first["reason"] == "Interrupted"
    assert "evict" in first["message"].lower()
    frail.kubectl("uncordon", frail.name)
    run.until("Completed", seconds=240)
    assert reasons(run) == ["Interrupted", "Completed"]
    assert (run.status["interruptions"], run.status.get("failures", 0)) == (1, 0)
    assert run.status["attempts"][1]["resumedFromStep"] == first["checkpointStep"] > 0
    assert_same(run, reference, s3)


def test_a_node_that_vanishes_is_not_waited_for_and_its_zombie_does_no_harm(frail, trainers, reference, s3) -> None:
    # given a run with a checkpoint, on a node that stands still and is heard of no more
    run = trainers.apply("zombie", toy())
    folder = Folder(s3, run)
    folder.checkpoint()
    [pod] = run.pods()
    frail.kubelet("stop")
    frail.task("pause", pod=pod)

    # when its pod is marked for deletion, as eviction by the node's taint does after five minutes
    trainers.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false", "--grace-period=30")

    # then the next attempt starts though the pod never ends
    eventually(lambda: len(reasons(run)) == 2, "the next attempt is there", 90)
    first = run.status["attempts"][0]
    assert (first["reason"], pod["spec"]["nodeName"] in first["message"]) == ("Interrupted", True)
    assert pod["metadata"]["uid"] in [found["metadata"]["uid"] for found in run.pods()]

    # and when the node is back, and the zombie awakes beside its successor before kubelet's patience with it is over
    frail.kubelet("start")
    eventually(lambda: folder.has_begun(2), "the next attempt has begun", 90)
    asleep = folder.newest(attempt=1)
    frail.task("resume", pod=pod)

    # then it goes on, and does no harm
    eventually(lambda: folder.newest(attempt=1) > asleep, "the zombie has done another step", 30)
    run.until("Completed", seconds=240)
    assert reasons(run) == ["Interrupted", "Completed"]
    assert run.status["attempts"][1]["resumedFromStep"] > 0
    assert folder.report()["attempt"] == 2
    eventually(lambda: len(run.pods()) == 1, "the zombie is gone", 60)
    assert_same(run, reference, s3)


def test_storage_that_is_away_is_waited_for_and_a_run_outlives_it(frail, trainers, reference, s3) -> None:
    # given a run that asks its storage ten times, and one that asks once
    patient = trainers.apply("patient", toy())
    hasty = trainers.apply(
        "hasty", toy(maxRetries=10, podTemplate={"env": [{"name": "AWS_MAX_ATTEMPTS", "value": "1"}]})
    )
    for run in (patient, hasty):
        Folder(s3, run).checkpoint()

    # when the storage goes away and comes back
    frail.storage("stop")
    eventually(lambda: hasty.status.get("failures"), "the hasty run fails", 120)
    failed = hasty.status["attempts"][0]
    frail.storage("start")

    # then the one has noticed nothing, and the other tries again
    assert failed["reason"] == "StorageUnavailable"
    assert "cannot be reached" in failed["message"]
    for run in (patient, hasty):
        run.until("Completed", seconds=300)
        assert_same(run, reference, s3)
    assert reasons(patient) == ["Completed"]
    assert set(reasons(hasty)) == {"StorageUnavailable", "Completed"}
    assert "StorageUnavailable" in dict(hasty.events("StorageUnavailable"))
