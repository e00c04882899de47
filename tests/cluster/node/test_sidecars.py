"""Containers that admission injects, under a real kubelet: it sorts states by name, and keeps the pod for them."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from cluster.eventually import eventually
from cluster.node.node import Json, Node, Run, Team

ADMISSION = "admissionregistration.k8s.io/v1"
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


def cel(value: Any) -> str:
    """A value in CEL, whose maps have values of one type unless these are said to be of any."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: dyn({cel(item)})" for key, item in value.items()) + "}"
    return "[" + ", ".join(map(cel, value)) + "]" if isinstance(value, list) else json.dumps(value)


def inject(team: Team, field: str, container: Json) -> None:
    """Have admission put a container first into every pod of the namespace that comes from now on."""
    # A pod of ours has no init containers.
    place, value = ("initContainers", [container]) if field == "initContainers" else ("containers/0", container)
    expression = f'[JSONPatch{{op: "add", path: "/spec/{place}", value: {cel(value)}}}]'
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    policy = {
        "apiVersion": ADMISSION,
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": team.namespace},
        "spec": {
            "matchConstraints": {
                "resourceRules": [rule],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": team.namespace}},
            },
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
        },
    }
    binding = {
        "apiVersion": ADMISSION,
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": team.namespace},
        "spec": {"policyName": team.namespace},
    }
    team.node.kubectl(
        "apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": [policy, binding]})
    )


def python(team: Team, name: str, code: str | None, **more: Any) -> Json:
    """A container of the stub's image, which restricted Pod Security admits; without code its image cannot be had."""
    return {
        "name": name,
        "image": team.node.images["stub"] if code is not None else "localhost/absent:1",
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", code or "pass"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        **more,
    }


def at_work(team: Team, name: str) -> bool:
    """Whether pods of the namespace get the container by now."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "namespace": team.namespace},
        "spec": {
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [python(team, "job", "pass")],
        },
    }
    answer = team.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", text=json.dumps(pod), check=False)
    return f'"name": "{name}"' in answer


@pytest.fixture(scope="module")
def runs(release: Node) -> Iterator[dict[str, Run]]:
    """A run for each kind of container, in a namespace of its own, all at the same time."""
    served = release.kubectl("api-resources", "--api-group=admissionregistration.k8s.io", "-o", "wide", "--no-headers")
    if not any("MutatingAdmissionPolicy " in line and ADMISSION in line for line in served.splitlines()):
        pytest.skip("this cluster does not serve MutatingAdmissionPolicy, which is general from Kubernetes 1.36 on")
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
        eventually(lambda team=team, name=name: at_work(team, name), f"{name} in pods of {team.namespace}")
    yield {kind: team.stub(kind, ORDERS, maxRetries=1 if kind in BESIDE else 0) for kind, (team, _) in teams.items()}
    for team, _ in teams.values():
        release.kubectl("delete", "mutatingadmissionpolicy,mutatingadmissionpolicybinding", team.namespace)
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
