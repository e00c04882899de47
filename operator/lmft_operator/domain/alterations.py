"""What a cluster's admission policies have changed in a Job of ours, as the API server shows it.

An attempt is exactly one pod, or on several nodes as many as its label says. A Job that was changed so that it would
make another number, or to end or be deleted by other rules, is still used where that does no harm, and the change is
reported.
"""

from collections.abc import Mapping
from typing import Any

from lmft_api.wire.run_file import ATTEMPT_LABEL, CONTAINER, NODES_LABEL, RUN_ANNOTATION, RUN_LABEL, STAGE_LABEL

_OURS: Mapping[str, Any] = {
    "backoffLimit": 0,
    "completions": 1,
    "parallelism": 1,
    "activeDeadlineSeconds": None,
    "ttlSecondsAfterFinished": None,
}
FIELDS = tuple(_OURS)
"""Whole numbers of a Job's spec that are checked; ``managedBy`` and the pods' ``restartPolicy`` are too."""
_DEFAULT_MANAGER = "kubernetes.io/job-controller"
_RESTARTS = "Never"
_PODS = ("completions", "parallelism")
_INDEXED = "Indexed"
_LABELS = (RUN_LABEL, ATTEMPT_LABEL, STAGE_LABEL, NODES_LABEL)


def altered(spec: Mapping[str, Any], nodes: int = 1) -> str:
    """The fields of a Job of so many pods that differ from what the operator writes; empty when none does."""
    ours = _ours(nodes)
    found = [_described(field, spec[field], ours[field]) for field in ours if _differs(spec, field, ours)]
    if _numbered(spec, nodes):
        found.append(f"completionMode {str(spec.get('completionMode'))[:20]} rather than {_INDEXED}")
    if manager := managed_by(spec):
        found.append(f"managedBy {manager[:63]}")
    if restarts(spec):
        found.append(f"template.spec.restartPolicy {_restart_policy(spec)[:20]} rather than {_RESTARTS}")
    return ", ".join(found)


def managed_by(spec: Mapping[str, Any]) -> str:
    """The controller of another's that is to make the Job's pods; empty for Kubernetes' own."""
    manager = str(spec.get("managedBy") or "")
    return "" if manager == _DEFAULT_MANAGER else manager


def restarts(spec: Mapping[str, Any]) -> bool:
    """Whether kubelet would start the container again in its pod: the same attempt twice, in one folder."""
    return _restart_policy(spec) not in ("", _RESTARTS)


def _restart_policy(spec: Mapping[str, Any]) -> str:
    return str(spec.get("template", {}).get("spec", {}).get("restartPolicy") or "")


def other_pods(spec: Mapping[str, Any], nodes: int = 1) -> bool:
    """Whether the Job makes another number of pods, in parallel or in sequence, so that it cannot be an attempt."""
    ours = _ours(nodes)
    return any(_differs(spec, field, ours) for field in _PODS) or _numbered(spec, nodes)


def _numbered(spec: Mapping[str, Any], nodes: int) -> bool:
    """Whether several pods would lack the numbers by which they find each other."""
    return nodes > 1 and spec.get("completionMode") != _INDEXED


def repeats(spec: Mapping[str, Any]) -> bool:
    """Whether the Job's controller may replace a pod that failed."""
    return _differs(spec, "backoffLimit", _OURS)


def unusable(wanted: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """Why a Job cannot be an attempt after policies have changed it, as a sentence; empty if it can.

    Args:
        wanted: Job as the operator wrote it.
        made: Job as the API server has it.
    """
    if lost := _lost(wanted, made):
        return f"{explained(', '.join(lost))} It was deleted: without them it cannot be matched to its run."
    nodes = wanted["spec"].get("completions", 1)
    if other_pods(made.get("spec", {}), nodes):
        pods = "one pod" if nodes == 1 else f"{nodes} pods"
        return f"{explained(altered(made['spec'], nodes))} It was deleted: an attempt has {pods}."
    if restarts(made.get("spec", {})):
        return f"{explained(altered(made['spec'], nodes))} It was deleted: an attempt's container runs once."
    return ""


def _lost(wanted: Mapping[str, Any], made: Mapping[str, Any]) -> list[str]:
    """Which labels, owners, annotations and names that the Job and its pods depend on were changed."""
    lost = [f"metadata.labels[{name}]" for name in _LABELS if _label(wanted, name) != _label(made, name)]
    if _owners(wanted) - _owners(made):
        lost.append("metadata.ownerReferences")
    before, after = wanted["spec"]["template"], made.get("spec", {}).get("template", {})
    lost += [
        f"spec.template.metadata.labels[{name}]" for name in _LABELS if _label(before, name) != _label(after, name)
    ]
    if not after.get("metadata", {}).get("annotations", {}).get(RUN_ANNOTATION):
        lost.append(f"spec.template.metadata.annotations[{RUN_ANNOTATION}]")
    if not any(container.get("name") == CONTAINER for container in after.get("spec", {}).get("containers", ())):
        lost.append(f"the name of the container {CONTAINER}")
    return lost


def _label(body: Mapping[str, Any], name: str) -> Any:
    return (body.get("metadata", {}).get("labels") or {}).get(name)


def _owners(body: Mapping[str, Any]) -> set[str]:
    owners = body["metadata"].get("ownerReferences") or ()
    return {owner.get("uid", "") for owner in owners if owner.get("controller")}


def explained(changes: str) -> str:
    """A sentence about what was changed."""
    return f"A policy of the cluster has changed the Job: {changes}."


def _ours(nodes: int) -> Mapping[str, Any]:
    return {**_OURS, **dict.fromkeys(_PODS, nodes)}


def _differs(spec: Mapping[str, Any], field: str, ours: Mapping[str, Any]) -> bool:
    return field in spec and spec[field] is not None and spec[field] != ours[field]


def _described(field: str, value: Any, ours: Any) -> str:
    return f"{field} {str(value)[:20]}" + (f" rather than {ours}" if ours is not None else "")
