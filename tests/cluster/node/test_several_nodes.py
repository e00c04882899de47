"""Runs of two pods that train together, on a real kubelet: their figures, lost and drained pods, a pod without room."""

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from cluster.eventually import eventually
from cluster.node.node import Json, Node, Run, Team
from cluster.node.release import BUCKET
from cluster.node.training import PAIR, Folder, reasons, sure

INDEX = "batch.kubernetes.io/job-completion-index"
DIVIDED = {**PAIR, "training": {**PAIR["training"], "parallelism": "FSDP"}}
"""Each pod holds half of the weights, and stores its own part of a checkpoint."""
TENANT = "tenant"
"""A run that leaves no room for two more pods of its size."""
CORDON = {"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}


def running(run: Run, attempt: int, number: int = 2) -> dict[int, Json]:
    """The pods of an attempt by their index, once as many run."""

    def look() -> dict[int, Json] | None:
        found = {}
        for pod in run.pods():
            labels, status = pod["metadata"]["labels"], pod.get("status", {})
            if labels.get("lmfinetune.dev/attempt") == str(attempt) and status.get("phase") == "Running":
                found[int(labels.get(INDEX, 0))] = pod
        return found if len(found) == number else None

    return eventually(look, f"{number} pods of attempt {attempt} of {run.name} run", 600)


def holding(run: Run) -> list[Json]:
    """The pods that have not ended."""
    return [pod for pod in run.pods() if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")]


def lose(run: Run, folder: Folder, attempt: int, index: int) -> None:
    """Delete a pod, once there is something to resume from."""
    pods = running(run, attempt)
    folder.checkpoint(attempt, seconds=600)
    run.team.kubectl("delete", "pod", pods[index]["metadata"]["name"], "--wait=false")


def parts(folder: Folder, attempt: int) -> tuple[int, bool]:
    """Of a complete checkpoint of an attempt: parts that pods have stored, and whether its manifest came last."""
    folder.checkpoint(attempt, seconds=600)
    below = f"{folder.prefix}checkpoints/attempt-{attempt:04d}"
    listed = folder.s3.list_objects_v2(Bucket=BUCKET, Prefix=below)["Contents"]
    manifest = next(item for item in listed if item["Key"].endswith("/MANIFEST.json"))
    of_it = [item for item in listed if item["Key"].startswith(manifest["Key"].removesuffix("MANIFEST.json"))]
    last = max(item["LastModified"] for item in of_it)
    return sum("/parts/" in item["Key"] for item in of_it), manifest["LastModified"] == last


def grown_then_first_lost(run: Run, folder: Folder) -> None:
    """Begin on one node, as there is no room for two; grow when there is; then lose the first pod."""
    told = run.until("Unschedulable", seconds=300)["message"]
    assert told.startswith("Pod grown-2-"), told
    assert "cpu" in told
    running(run, 3, 1)
    run.team.kubectl("delete", "lmft", TENANT, "--wait=false")
    lose(run, folder, 4, 0)


def peer_lost_then_on_one_node(run: Run, folder: Folder) -> None:
    """Lose the other pod; then suspend the run, and let it go on alone."""
    lose(run, folder, 2, 1)
    running(run, 3)
    run.team.kubectl("patch", "lmft", run.name, "--type=merge", "-p", '{"spec":{"suspend":true}}')
    eventually(lambda: reasons(run)[-1] == "Suspended" and not holding(run), f"{run.name} holds nothing any more", 240)
    patch = json.dumps({"spec": {"suspend": False, "resources": {"nodes": 1}}})
    run.team.kubectl("patch", "lmft", run.name, "--type=merge", "-p", patch)


def one_pod_drained(run: Run, folder: Folder) -> None:
    """Drain the node as far as one of the pods goes, and give it back when the next attempt waits for it."""
    running(run, 2)
    assert parts(folder, 2) == (2, True)
    node, uid = run.team.node, run.body["metadata"]["uid"]
    selector = f"lmfinetune.dev/run-uid={uid},{INDEX}=1"
    try:
        node.kubectl("drain", node.name, "--ignore-daemonsets", "--delete-emptydir-data",
                     "--pod-selector", selector, "--timeout=120s")  # fmt: skip
        assert "unschedulable" in run.until("Unschedulable", seconds=240)["message"]
    finally:
        node.kubectl("uncordon", node.name)


STORIES = {"grown": grown_then_first_lost, "peer-lost": peer_lost_then_on_one_node, "pair-drained": one_pod_drained}


@pytest.fixture(scope="module")
def alone(trainers: Team) -> Run:
    """The same run on one process, which nobody disturbs."""
    return trainers.apply("alone", sure())


@pytest.fixture(scope="module")
def pairs(trainers: Team, s3, alone: Run) -> Iterator[dict[str, Future[Run]]]:
    """A run for each story, at the same time; the future gives it when it is done."""
    # Two pods of this size fit beside what else a node has, three on none.
    large = {"cpu": share_of_node(trainers.node, 0.33)}
    here = {"nodeSelector": {"kubernetes.io/hostname": trainers.node.name}, "tolerations": [CORDON]}
    tenant = trainers.stub(TENANT, {"seconds": 1800}, resources=large, podTemplate={**here})
    tenant.running_pod()
    elastic = {"resources": {"nodes": 2, **large, "elastic": {"minNodes": 1, "waitSeconds": 60}}}
    specs = {
        "grown": {**PAIR, **elastic, "podTemplate": here},
        "peer-lost": {**DIVIDED, "podTemplate": {"tolerations": [CORDON]}},
        "pair-drained": DIVIDED,
    }

    def story(name: str) -> Run:
        run = trainers.apply(name, sure(**specs[name]))
        STORIES[name](run, Folder(s3, run))
        run.until("Completed", seconds=600)
        return run

    with ThreadPoolExecutor(len(STORIES)) as threads:
        yield {name: threads.submit(story, name) for name in STORIES}


def share_of_node(node: Node, share: float) -> str:
    """So much of the CPUs that a node has for pods, as a quantity."""
    cpu = str(node.read("node", node.name)["status"]["allocatable"]["cpu"])
    milli = int(cpu.removesuffix("m")) if cpu.endswith("m") else int(cpu) * 1000
    return f"{int(milli * share)}m"


def assert_figures(run: Run, reference: Run, s3) -> None:
    """The figures are those of one process, but for the order in which sums are taken."""
    reference.until("Completed", seconds=600)
    mine, other = (Folder(s3, each).report()["results"] for each in (run, reference))
    for figure in ("perplexity", "baselinePerplexity", "evalLoss", "baselineEvalLoss"):
        assert mine[figure] == pytest.approx(other[figure], rel=1e-5), figure


def test_a_run_begins_on_the_nodes_there_are_and_takes_all_it_wants_once_they_have_room(pairs, alone, s3) -> None:
    run = pairs["grown"].result()

    attempts = run.status["attempts"]
    assert [(a["stage"], a.get("nodes")) for a in attempts[1:]] == [("Train", n) for n in (2, 1, 2, 2)]
    assert "There was no room for 2 nodes" in attempts[1]["message"]
    assert "There is room for 2 nodes again" in attempts[2]["message"]
    assert attempts[3]["resumedFromStep"] == attempts[2]["checkpointStep"] > 0
    assert attempts[4]["resumedFromStep"] == attempts[3]["checkpointStep"] > attempts[2]["checkpointStep"]
    assert [a["reason"] for a in attempts[1:]] == ["Interrupted", "Interrupted", "Interrupted", "Completed"]
    assert run.status.get("failures", 0) == 0
    assert_figures(run, alone, s3)
    services = run.team.kubectl("get", "services", "-o", "name")
    assert f"lmft-{run.body['metadata']['uid'][:8]}" not in services, "they go with their attempts"


def test_a_divided_model_survives_the_loss_of_a_pod_and_goes_on_alone(pairs, alone, s3) -> None:
    run = pairs["peer-lost"].result()

    attempts = run.status["attempts"]
    assert [attempt.get("nodes") for attempt in attempts[1:]] == [2, 2, 1]
    assert attempts[1]["reason"] == "Interrupted"
    # The third attempt may end before it has resumed, or after it has saved more.
    assert attempts[-1]["resumedFromStep"] == max(a.get("checkpointStep", 0) for a in attempts[:-1])
    assert attempts[-1]["resumedFromStep"] >= attempts[1]["checkpointStep"] > 0
    assert run.status.get("failures", 0) == 0
    assert_figures(run, alone, s3)


def test_when_one_pod_is_drained_both_save_and_the_run_goes_on_once_a_node_takes_them(pairs, alone, s3) -> None:
    run = pairs["pair-drained"].result()

    first, second = run.status["attempts"][1:]
    assert [attempt["nodes"] for attempt in (first, second)] == [2, 2]
    assert (first["reason"], first["exitCode"]) == ("Interrupted", 75)
    assert first["message"].startswith("Pod pair-drained-2-1-")
    assert "evict" in first["message"].lower()
    assert second["resumedFromStep"] == first["checkpointStep"] > 0
    assert second.get("lostSteps", 0) == 0
    assert (run.status["interruptions"], run.status.get("failures", 0)) == (1, 0)
    assert_figures(run, alone, s3)
