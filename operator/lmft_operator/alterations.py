"""What admission policies of a cluster have changed in a Job of ours, as the API server shows it.

An attempt is one pod: its place among the attempts is its own. A Job that would make a second
one, or ends and vanishes by rules of its own, is used all the same where that can be lived with, and it is said.
"""

from collections.abc import Mapping
from typing import Any

_OURS: Mapping[str, Any] = {
    "backoffLimit": 0,
    "completions": 1,
    "parallelism": 1,
    "activeDeadlineSeconds": None,
    "ttlSecondsAfterFinished": None,
}
FIELDS = tuple(_OURS)
"""Fields of a Job's spec that are looked at."""
_ONE_POD = ("completions", "parallelism")


def altered(spec: Mapping[str, Any]) -> str:
    """The fields of a Job that are not as the operator writes them, with their values; empty when all are."""
    return ", ".join(_said(field, spec[field]) for field in _OURS if _differs(spec, field))


def several_pods(spec: Mapping[str, Any]) -> bool:
    """Whether the Job makes more pods than one at a time or in a row, so that it cannot be an attempt."""
    return any(_differs(spec, field) for field in _ONE_POD)


def repeats(spec: Mapping[str, Any]) -> bool:
    """Whether the Job's controller may follow a pod that failed by another one."""
    return _differs(spec, "backoffLimit")


def told(changes: str) -> str:
    """A sentence about what was changed."""
    return f"A policy of the cluster has changed the Job: {changes}."


def _differs(spec: Mapping[str, Any], field: str) -> bool:
    return field in spec and spec[field] is not None and spec[field] != _OURS[field]


def _said(field: str, value: Any) -> str:
    ours = _OURS[field]
    return f"{field} {str(value)[:20]}" + (f" rather than {ours}" if ours is not None else "")
