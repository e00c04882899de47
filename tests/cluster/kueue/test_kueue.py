"""Runs in the queues of Kueue: admitted whole or not at all, preempted and resumed, and never in each other's way."""

from typing import Any

import pytest
from cluster.eventually import eventually
from cluster.kueue.manager import PRIORITY_LABEL, Kueue
from cluster.kueue.runs import in_queue, pair_of_stubs
from cluster.node.node import Run, Team
from cluster.node.training import PAIR, Folder, assert_same, reasons, sure


def admitted(kueue: Kueue, team: Team) -> list[int]:
    """Pods of each workload that holds a part of the quota."""
    held = []
    for workload in kueue.workloads(team.namespace):
        status = workload.get("status", {})
        now = {c["type"] for c in status.get("conditions", []) if c["status"] == "True"}
        if "Admitted" in now and not now & {"Finished", "Evicted"}:
            held.append(sum(part["count"] for part in status["admission"]["podSetAssignments"]))
    return held


def test_two_runs_of_two_pods_never_deadlock_where_there_is_room_for_three(kueue: Kueue, team: Team) -> None:
    # given a queue with room for one of them and a half
    kueue.queue(team.namespace, "three", pods=3)
    runs = [pair_of_stubs(team, name, "three", seconds=15) for name in ("first", "second")]

    # when both want two pods at the same time
    waits: set[str] = set()

    def look() -> bool:
        held = admitted(kueue, team)
        assert set(held) <= {1, 2}, "a preparation, or both pods"
        assert sum(held) <= 3
        waits.update(run.condition.get("message", "") for run in runs if run.condition.get("reason") == "Queued")
        return all(run.status.get("completionTime") for run in runs)

    eventually(look, "both runs are done", 600)

    # then one waits for the other, says for want of what, and both are done
    assert [reasons(run) for run in runs] == [["Completed", "Completed"]] * 2
    assert any("insufficient unused quota for pods in flavor default, 1 more needed" in words for words in waits), waits


@pytest.fixture(scope="module")
def undisturbed(trainers: Team) -> Run:
    return trainers.apply("undisturbed-pair", sure(250, **PAIR))


def test_a_run_that_is_preempted_saves_queues_again_and_ends_with_the_same_figures(
    kueue: Kueue, trainers: Team, undisturbed: Run, s3: Any
) -> None:
    # given a run of two pods that trains, in a queue without more room
    kueue.priority("urgent", 1000)
    kueue.queue(trainers.namespace, "two", pods=2)
    run = trainers.apply("preempted", sure(250, **PAIR, **in_queue("two")))
    saved = Folder(s3, run).checkpoint(2, seconds=900)

    # when a run of a higher priority comes
    urgent = pair_of_stubs(trainers, "urgent", "two", seconds=5, labels={PRIORITY_LABEL: "urgent"})

    # then it gets the places, and the first run waits in the queue with what it has saved
    def preempted() -> bool:
        return reasons(run)[1:2] == ["Interrupted"] and run.condition.get("reason") == "Queued"

    eventually(preempted, "the run gives way", 600)
    urgent.until("Completed", seconds=600)
    run.until("Completed", seconds=900)
    attempts = run.status["attempts"]
    assert attempts[1]["checkpointStep"] >= saved
    assert attempts[-1]["resumedFromStep"] == attempts[1]["checkpointStep"]
    assert run.status.get("failures", 0) == 0
    assert_same(run, undisturbed, s3)
