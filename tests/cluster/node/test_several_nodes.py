"""Runs of two pods that train together, on a real kubelet: their figures, a lost pod, a pod without room."""

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from cluster.eventually import eventually
from cluster.node.node import Json, Run, Team
from cluster.node.training import PAIR, Folder, reasons, sure

INDEX = "batch.kubernetes.io/job-completion-index"


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


def lose(run: Run, folder: Folder, index: int) -> None:
    """Delete a pod of the attempt that trains first, once there is something to resume from."""
    pods = running(run, 2)
    folder.checkpoint(2, seconds=600)
    run.team.kubectl("delete", "pod", pods[index]["metadata"]["name"], "--wait=false")


def first_lost(run: Run, folder: Folder) -> None:
    lose(run, folder, 0)


def peer_lost_then_on_one_node(run: Run, folder: Folder) -> None:
    """Lose the other pod too; then suspend the run, and let it go on alone."""
    lose(run, folder, 1)
    running(run, 3)
    run.team.kubectl("patch", "lmft", run.name, "--type=merge", "-p", '{"spec":{"suspend":true}}')
    eventually(lambda: reasons(run)[-1] == "Suspended" and not holding(run), f"{run.name} holds nothing any more", 240)
    patch = json.dumps({"spec": {"suspend": False, "resources": {"nodes": 1}}})
    run.team.kubectl("patch", "lmft", run.name, "--type=merge", "-p", patch)


STORIES = {"first-lost": first_lost, "peer-lost": peer_lost_then_on_one_node}


@pytest.fixture(scope="module")
def alone(trainers: Team) -> Run:
    """The same run on one process, which nobody disturbs."""
    return trainers.apply("alone", sure())


@pytest.fixture(scope="module")
def pairs(trainers: Team, s3, alone: Run) -> Iterator[dict[str, Future[Run]]]:
    """A run for each story, at the same time; the future gives it when it is done."""

    def story(name: str) -> Run:
        run = trainers.apply(name, sure(**PAIR))
        STORIES[name](run, Folder(s3, run))
        run.until("Completed", seconds=600)
        return run

    with ThreadPoolExecutor(len(STORIES)) as threads:
        yield {name: threads.submit(story, name) for name in STORIES}


@pytest.mark.parametrize("name", STORIES)
def test_two_pods_end_with_the_figures_of_one_process_whichever_of_them_is_lost(pairs, alone, name) -> None:
    run, reference = pairs[name].result(), alone
    reference.until("Completed", seconds=600)

    attempts = run.status["attempts"]
    assert [attempt["stage"] for attempt in attempts[:2]] == ["Prepare", "Train"]
    assert attempts[1]["reason"] == "Interrupted"
    # The third attempt of the run that is suspended may end before it has resumed, or after it has saved more.
    assert attempts[-1]["resumedFromStep"] == max(a.get("checkpointStep", 0) for a in attempts[:-1])
    assert attempts[-1]["resumedFromStep"] >= attempts[1]["checkpointStep"] > 0
    assert run.status.get("failures", 0) == 0
    assert [a.get("nodes") for a in attempts[1:]] == ([2, 2] if name == "first-lost" else [2, 2, 1])
    for figure in ("perplexity", "baselinePerplexity"):
        mine, other = (float(each.status["results"][figure]) for each in (run, reference))
        assert mine == pytest.approx(other, rel=1e-3), figure


def test_a_pod_that_no_node_takes_is_named_and_the_run_goes_on_with_those_that_have_a_place(team) -> None:
    # given pods of which the node has room for one
    nodes = team.node.read("nodes")["items"]
    cores = min(int(node["status"]["allocatable"]["cpu"]) for node in nodes)
    run = team.stub(
        "squeezed",
        [{"seconds": 0}, {"seconds": 600}, {"seconds": 0}],
        resources={
            "nodes": 2 * len(nodes),
            "cpu": f"{cores * 600}m",
            "elastic": {"minNodes": len(nodes), "waitSeconds": 60},
        },
    )

    # then the run says which pod has none and why, while the other waits, but not for ever
    told = run.until("Unschedulable", seconds=120)["message"]
    assert told.startswith("Pod squeezed-2-")
    assert "cpu" in told
    run.until("Completed", seconds=240)
    attempts = run.status["attempts"]
    assert [attempt.get("nodes") for attempt in attempts[1:]] == [2 * len(nodes), len(nodes)]
    assert "no room" in attempts[1]["message"]
    assert "lmft-" not in team.kubectl("get", "services", "-o", "name"), "it goes with its attempt"
