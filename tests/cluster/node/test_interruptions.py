"""Real training, stopped in every way at once beside a run that nobody stops: all end with its figures and weights."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from cluster.chaos.history import live_attempts
from cluster.eventually import eventually
from cluster.node.node import Json, Run
from cluster.node.training import STEPS, Folder, assert_same, reasons, toy

LIVE = ("percent", "display", "step", "totalSteps", "epoch", "loss", "tokensPerSecond", "eta", "lastUpdateTime")


def delete_the_pod(run: Run, folder: Folder) -> None:
    folder.checkpoint()
    run.team.kubectl("delete", "pod", run.running_pod(), "--wait=false")


def kill_the_container(run: Run, folder: Folder) -> None:
    """SIGKILL, at a moment when steps would be lost."""
    eventually(lambda: folder.known_step() > folder.checkpoint(), f"{run.name} has gone on from its checkpoint", 240)
    [pod] = run.pods()
    run.team.node.task("kill", "--all", "--signal", "KILL", pod=pod)


def delete_the_job(run: Run, folder: Folder) -> None:
    folder.checkpoint()
    run.team.kubectl("delete", "job", run.jobs()[0]["metadata"]["name"], "--wait=false")


def suspend_and_go_on(run: Run, folder: Folder) -> None:
    folder.checkpoint()
    run.team.kubectl("patch", "lmft", run.name, "--type=merge", "-p", '{"spec":{"suspend":true}}')
    eventually(lambda: reasons(run) == ["Suspended"] and not run.pods(), f"{run.name} holds nothing any more", 90)
    assert run.condition["reason"] == "Suspended"
    run.team.kubectl("patch", "lmft", run.name, "--type=merge", "-p", '{"spec":{"suspend":false}}')


def play_kueue(run: Run, folder: Folder) -> None:
    """Admit what waits, take the first place away again, and give it back at once, while its pod still ends."""

    def suspend(job: Json, suspended: bool) -> None:
        patch = json.dumps({"spec": {"suspend": suspended}})
        # The operator may have deleted it meanwhile.
        run.team.kubectl("patch", "job", job["metadata"]["name"], "--type=merge", "-p", patch, check=suspended)

    def admit_and_look() -> str | None:
        for job in run.jobs():
            if job["spec"].get("suspend") and "deletionTimestamp" not in job["metadata"]:
                suspend(job, False)
        live = live_attempts([], run.pods(), time.time())
        assert len(live) < 2, f"{run.name} has several pods at a time: {live}"
        return run.status.get("completionTime")

    assert run.until("Queued")["status"] == "Unknown"
    assert run.pods() == []
    admit_and_look()
    folder.checkpoint()
    [job] = run.jobs()
    suspend(job, True)
    eventually(lambda: all("deletionTimestamp" in pod["metadata"] for pod in run.pods()), "its pod is told to end", 60)
    eventually(admit_and_look, f"{run.name} is done", 400)


STOPS: dict[str, Callable[[Run, Folder], None]] = {
    "pod-deleted": delete_the_pod,
    "container-killed": kill_the_container,
    "job-deleted": delete_the_job,
    "suspended": suspend_and_go_on,
    "queued": play_kueue,
}


@pytest.fixture(scope="module")
def stopped(trainers, reference, s3) -> Iterator[dict[str, Future[Run]]]:
    """A run for each way to stop one, all under way at the same time; the future gives it when it is done."""
    queue = {"podTemplate": {"labels": {"kueue.x-k8s.io/queue-name": "spare"}}}

    def story(name: str, stop: Callable[[Run, Folder], None]) -> Run:
        run = trainers.apply(name, toy(**queue if name == "queued" else {}))
        stop(run, Folder(s3, run))
        run.until("Completed", seconds=400)
        return run

    with ThreadPoolExecutor(len(STOPS)) as threads:
        yield {name: threads.submit(story, name, stop) for name, stop in STOPS.items()}


def test_a_run_is_seen_live_with_its_evaluations_as_they_come(stopped, trainers) -> None:
    run = trainers.apply("seen-live", toy())
    seen: list[Json] = []

    def look() -> bool:
        status = run.status
        progress = status.get("progress") or {}
        if progress.get("step") and not (seen and seen[-1]["progress"] == progress):
            seen.append(status)
        return bool(status.get("completionTime"))

    eventually(look, "the run is done", 400)
    live = [status for status in seen if not status.get("completionTime")]
    assert len(live) > 1
    assert set(LIVE) - {"eta"} <= set(live[0]["progress"])
    assert any(status["progress"].get("eta") for status in live)
    steps = [status["progress"]["step"] for status in live]
    assert steps == sorted(steps)
    said = [f"step {status['progress']['step']} of {STEPS}" in status["conditions"][0]["message"] for status in live]
    assert any(said)
    counts = [len(status.get("evaluations", [])) for status in live]
    assert counts == sorted(counts)
    assert len(set(counts)) > 1
    assert all(status["results"]["perplexity"] == status["evaluations"][-1]["perplexity"] for status in live
               if status.get("evaluations"))  # fmt: skip
    assert reasons(run) == ["Completed"]


@pytest.mark.parametrize("name", ["pod-deleted", "job-deleted"])
def test_what_takes_its_pod_away_interrupts_a_run_and_no_step_is_lost(stopped, reference, s3, name) -> None:
    run = stopped[name].result()
    first, second = run.status["attempts"]
    assert (first["reason"], second["reason"]) == ("Interrupted", "Completed")
    assert (run.status["interruptions"], run.status.get("failures", 0)) == (1, 0)
    assert second["resumedFromStep"] == first["checkpointStep"] > 0
    assert second["lostSteps"] == 0
    assert_same(run, reference, s3)


def test_a_killed_container_is_a_failure_that_costs_the_steps_since_its_checkpoint(stopped, reference, s3) -> None:
    run = stopped["container-killed"].result()
    first, second = run.status["attempts"]
    assert (first["reason"], first["exitCode"], second["reason"]) == ("InternalError", 137, "Completed")
    assert "SIGKILL" in first["message"]
    assert (run.status.get("interruptions", 0), run.status["failures"]) == (0, 1)
    assert second["resumedFromStep"] > 0
    assert second["lostSteps"] == max(0, Folder(s3, run).known_step() - second["resumedFromStep"])
    assert_same(run, reference, s3)


def test_a_suspended_run_frees_its_pod_and_goes_on_from_its_checkpoint(stopped, reference, s3) -> None:
    run = stopped["suspended"].result()
    first, second = run.status["attempts"]
    assert (first["reason"], second["reason"]) == ("Suspended", "Completed")
    assert (run.status.get("interruptions", 0), run.status.get("failures", 0)) == (0, 0)
    assert second["resumedFromStep"] == first["checkpointStep"] > 0
    assert_same(run, reference, s3)


def test_a_queue_may_admit_a_run_take_its_place_away_and_admit_it_again(stopped, reference, s3) -> None:
    run = stopped["queued"].result()
    assert run.status.get("failures", 0) == 0
    assert reasons(run) == ["Interrupted", "Completed"]
    assert run.status["attempts"][-1]["resumedFromStep"] > 0
    eventually(lambda: all(job["status"].get("completionTime") for job in run.jobs()), "every Job is complete")
    assert_same(run, reference, s3)
