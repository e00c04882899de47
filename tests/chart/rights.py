"""The operator's rights, as the chart's roles should give them, and as a role does."""

from typing import Any

NAMESPACED_RULES = {
    ("lmfinetune.dev", "lmfinetunes"): {"get", "list", "watch", "delete"},
    ("lmfinetune.dev", "lmfinetunes/status"): {"patch"},
    ("lmfinetune.dev", "lmfinetunes/finalizers"): {"update"},
    ("batch", "jobs"): {"create", "get", "list", "watch", "delete"},
    ("", "pods"): {"list", "watch"},
    ("", "services"): {"create", "get", "delete"},
    ("", "events"): {"list", "watch", "create"},
}
LEASE_RULES = {("coordination.k8s.io", "leases"): {"create", "get", "update"}}
CLUSTER_RULES = {
    ("apiextensions.k8s.io", "customresourcedefinitions"): {"list", "watch"},
    ("authentication.k8s.io", "tokenreviews"): {"create"},
}
NODE_RULES = {
    ("", "nodes"): {"list"},
    ("networking.k8s.io", "networkpolicies"): {"create", "get", "delete"},
}
"""Where runs may take several nodes, in any namespace."""
SECURE_RULES = {("authorization.k8s.io", "subjectaccessreviews"): {"create"}}
"""With metrics.secure."""


def rules(role: dict[str, Any]) -> dict[tuple[str, str], set[str]]:
    """Verbs by API group and resource."""
    found: dict[tuple[str, str], set[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found.setdefault((group, resource), set()).update(rule["verbs"])
    return found
