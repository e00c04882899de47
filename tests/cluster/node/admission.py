"""Policies of the cluster that change every pod of a namespace, as a mesh or an own scheduler does."""

import json
from typing import Any

import pytest
from cluster.node.node import Json, Node, Team

ADMISSION = "admissionregistration.k8s.io/v1"


def require_policies(node: Node) -> None:
    """Skip where the cluster does not serve them."""
    served = node.kubectl("api-resources", "--api-group=admissionregistration.k8s.io", "-o", "wide", "--no-headers")
    if not any("MutatingAdmissionPolicy " in line and ADMISSION in line for line in served.splitlines()):
        pytest.skip("this cluster does not serve MutatingAdmissionPolicy, which is general from Kubernetes 1.36 on")


def cel(value: Any) -> str:
    """A value in CEL, whose maps have values of one type unless these are said to be of any."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: dyn({cel(item)})" for key, item in value.items()) + "}"
    return "[" + ", ".join(map(cel, value)) + "]" if isinstance(value, list) else json.dumps(value)


def add_to_pods(team: Team, **values: Any) -> None:
    """Have admission add to every pod of the namespace that comes from now on: values by place, ``__`` for a slash."""
    patches = [
        f'JSONPatch{{op: "add", path: "/spec/{place.replace("__", "/")}", value: {cel(value)}}}'
        for place, value in values.items()
    ]
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    policy: Json = {
        "apiVersion": ADMISSION,
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": team.namespace},
        "spec": {
            "matchConstraints": {
                "resourceRules": [rule],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": team.namespace}},
            },
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": f"[{', '.join(patches)}]"}}],
        },
    }
    binding = {
        "apiVersion": ADMISSION,
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": team.namespace},
        "spec": {"policyName": team.namespace},
    }
    both = json.dumps({"apiVersion": "v1", "kind": "List", "items": [policy, binding]})
    team.node.kubectl("apply", "-f", "-", text=both)


def leave_pods_alone(team: Team) -> None:
    """Take that back."""
    team.node.kubectl("delete", "mutatingadmissionpolicy,mutatingadmissionpolicybinding", team.namespace)


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


def admitted(team: Team) -> str:
    """What admission makes of a pod of the namespace by now, as JSON; empty where it refuses it."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "namespace": team.namespace},
        "spec": {
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [python(team, "job", "pass")],
        },
    }
    return team.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", text=json.dumps(pod), check=False)
