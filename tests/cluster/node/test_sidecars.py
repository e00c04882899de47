"""Containers that admission injects, under a real kubelet: it sorts states by name, and keeps the pod for them."""

from collections.abc import Iterator

import pytest
from cluster.eventually import eventually
from cluster.node.admission import add_to_pods, admitted, leave_pods_alone, python, require_policies
from cluster.node.node import Json, Node, Run, Team

STAYS = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(0)); time.sleep(600)"
ORDERS = [{"seconds": 3, "exit": 6}, {"seconds": 3}]
"""What the job does: an attempt that fails, and one that does not."""
BESIDE = {
    "sorts-before-and-stays": {"containers": ("a-mesh", STAYS)},
    "sorts-before-and-ends-first": {"containers": ("a-hello", "pass")},
    "sorts-before-and-fails-first": {"containers": ("a-broken", "exit(3)")},
    "sorts-after-and-stays": {"containers": ("z-logs", STAYS)},
    "sorts-after-and-fails-first": {"containers": ("z-broken", "exit(3)")},
    "native": {"initContainers": ("a-mesh", STAYS)},
}
BEFORE = {
    "init-fails": ("exit(3)", "InternalError", ["Init container a-vault", "exited with code 3"]),
    "init-imageless": (None, "ImagePullFailed", ["a-vault", "localhost/absent:1"]),
}


def inject(team: Team, field: str, container: Json) -> None:
    """Have admission put a container first into every pod of the namespace that comes from now on."""
    # A pod of ours has no init containers.
    added = {"initContainers": [container]} if field == "initContainers" else {"containers__0": container}
    add_to_pods(team, **added)


@pytest.fixture(scope="module")
def runs(release: Node) -> Iterator[dict[str, Run]]:
    """A run for each kind of container, in a namespace of its own, all at the same time."""
    require_policies(release)
    teams: dict[str, tuple[Team, str]] = {}
    for kind, where in BESIDE.items():
        [(field, (name, code))] = where.items()
        teams[kind] = release.team(), name
        always = {"restartPolicy": "Always"} if field == "initContainers" else {}
        inject(teams[kind][0], field, python(teams[kind][0], name, code, **always))
    for kind, (code, *_) in BEFORE.items():
        teams[kind] = release.team(), "a-vault"
        inject(teams[kind][0], "initContainers", python(teams[kind][0], "a-vault", code))
    for team, name in teams.values():
        eventually(
            lambda team=team, name=name: f'"name": "{name}"' in admitted(team), f"{name} in pods of {team.namespace}"
        )
    yield {kind: team.stub(kind, ORDERS, maxRetries=1 if kind in BESIDE else 0) for kind, (team, _) in teams.items()}
    for team, _ in teams.values():
        leave_pods_alone(team)
        release.kubectl("delete", "namespace", team.namespace, "--wait=false")


@pytest.mark.parametrize("kind", BESIDE)
def test_a_container_beside_ours_changes_no_verdict_and_keeps_no_pod(runs: dict[str, Run], kind: str) -> None:
    run = runs[kind]
    run.until("Completed", seconds=180)
    # then one attempt after the other, each with the end that our container had
    attempts = run.status["attempts"]
    assert [attempt["reason"] for attempt in attempts] == ["StorageUnavailable", "Completed"]
    assert attempts[0]["endTime"] <= attempts[1]["startTime"]
    assert (run.status["failures"], run.status["results"]["perplexity"]) == (1, "49.61")
    # and nothing holds the node any more
    eventually(lambda: all(pod["status"]["phase"] in ("Succeeded", "Failed") for pod in run.pods()), "no pod runs", 90)


@pytest.mark.parametrize("kind", BEFORE)
def test_a_container_that_keeps_ours_from_starting_is_named(runs: dict[str, Run], kind: str) -> None:
    _, reason, words = BEFORE[kind]
    message = runs[kind].until(reason, seconds=120)["message"]
    assert [word for word in words if word not in message] == []
