"""Pods that a real kubelet does not take: something binds them to a node past the scheduler, as many clusters do."""

from collections.abc import Iterator
from typing import Any

import pytest
from cluster.eventually import eventually
from cluster.node.admission import add_to_pods, admitted, leave_pods_alone, require_policies
from cluster.node.node import Node, Run, Team

REJECTED: dict[str, dict[str, Any]] = {
    "OutOfcpu": {"containers__0__resources": {"requests": {"cpu": "999"}}},
    "OutOfmemory": {"containers__0__resources": {"requests": {"memory": "999Ti"}}},
    "OutOfephemeral-storage": {"containers__0__resources": {"requests": {"ephemeral-storage": "999Ti"}}},
    "NodeAffinity": {"nodeSelector": {"example.com/zone": "elsewhere"}},
    "SysctlForbidden": {"securityContext__sysctls": [{"name": "kernel.msgmax", "value": "65536"}]},
}
"""kubelet's reason, and what a policy adds to the pod beside the node's name."""


@pytest.fixture(scope="module")
def rejected(release: Node) -> Iterator[dict[str, Run]]:
    """A run for each reason, in a namespace of its own, all at the same time."""
    require_policies(release)
    runs: dict[str, Run] = {}
    for number, (reason, added) in enumerate(REJECTED.items()):
        team = release.team(**{"pod-security.kubernetes.io/enforce": "privileged"})
        add_to_pods(team, nodeName=release.name, **added)
        eventually(
            lambda team=team: f'"nodeName": "{release.name}"' in admitted(team), f"pods bound in {team.namespace}"
        )
        runs[reason] = team.stub(f"rejected-{number}", {}, maxRetries=0)
    yield runs
    for run in runs.values():
        release.kubectl("delete", "namespace", run.team.namespace, "--wait=false")
        release.kubectl(
            "delete", "--ignore-not-found", "mutatingadmissionpolicy,mutatingadmissionpolicybinding", run.team.namespace
        )


@pytest.mark.parametrize("reason", REJECTED)
def test_what_kubelet_does_not_take_is_an_interruption_and_tried_again_later(
    rejected: dict[str, Run], reason: str
) -> None:
    run = rejected[reason]

    # when the node has rejected two attempts
    def twice() -> bool:
        return len([a for a in run.status.get("attempts", []) if a.get("endTime")]) >= 2

    eventually(twice, f"two attempts of {run.name} are rejected", 120)

    # then neither is a failure, though the run may not fail once, and the status says what kubelet says
    first, second = run.status["attempts"][:2]
    for attempt in (first, second):
        assert (attempt["reason"], attempt["cause"]) == ("Interrupted", reason)
        assert attempt["message"].startswith(f"The node's kubelet rejected the pod. {reason}: ")
    assert "failures" not in run.status
    assert run.condition["status"] == "Unknown"
    waits = [message for _, message in run.events("Interrupted")]
    assert [message for message in waits if f"Attempt 1: {first['message']}" in message]

    # and once the cause is gone the next attempt runs
    leave_pods_alone(run.team)
    run.until("Completed", seconds=120)
    assert run.status["attempts"][-1]["reason"] == "Completed"
    assert "failures" not in run.status


def test_the_waits_between_rejections_grow(rejected: dict[str, Run]) -> None:
    """By the pods' own times; one second at first in this release, thirty at most."""
    release = next(iter(rejected.values())).team.node
    team: Team = release.team(**{"pod-security.kubernetes.io/enforce": "privileged"})
    add_to_pods(team, nodeName=release.name, **REJECTED["OutOfcpu"])
    eventually(lambda: f'"nodeName": "{release.name}"' in admitted(team), f"pods bound in {team.namespace}")
    run = team.stub("growing", {})
    try:
        condition = run.until("Interrupted", seconds=60)
        assert "The node's kubelet rejected the pod. OutOfcpu" in condition["message"]
        found = eventually(lambda: _waits(run), "an announced wait of 4 s or more", 60)
    finally:
        leave_pods_alone(team)
    assert found >= 4


def _waits(run: Run) -> float | None:
    """The wait that the condition announces, once it is of four seconds or more."""
    _, _, rest = run.condition.get("message", "").partition("Retrying after ")
    seconds = float(rest.partition(" s.")[0] or 0) if rest else 0.0
    return seconds if seconds >= 4 else None
