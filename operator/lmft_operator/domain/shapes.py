"""Which fields of the API server's objects are read, and their types: one table for each kind.

Whoever may create Jobs or Pods may write nearly anything into them. An object is reduced to its shape before anything
else reads it: fields that are not used are dropped, so that a megabyte of annotations costs nothing, and a value of
the wrong type or beyond its bounds counts as absent.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from lmft_api import KIND
from lmft_api.wire.run_file import (
    ATTEMPT_LABEL,
    INDEX_LABEL,
    NODES_LABEL,
    RUN_ANNOTATION,
    RUN_LABEL,
    STAGE_LABEL,
)
from lmft_operator.domain import alterations

JsonObject = Mapping[str, Any]
Shape = Callable[[Any], Any]
"""Converts a JSON value to what may be read of it; None if it counts as absent."""

MAX_SPEC_BYTES = 128 * 1024
MAX_STATUS_BYTES = 256 * 1024
MAX_TEXT = 4096
MAX_ITEMS = 256
MAX_INTEGER = 2**53
OCCUPANT = "Occupant"
"""Kind under which a Pod of anybody's is read: what it takes of its node."""
UNREAD = "unread"
"""Key in a run's shape: why its spec was not read, with the hash of the spec."""


def text(most: int = MAX_TEXT) -> Shape:
    """A string, cut to ``most`` characters; invalid Unicode is replaced."""

    def shape(value: Any) -> str | None:
        if not isinstance(value, str):
            return None
        cut = value[:most]
        return cut if cut.isascii() else cut.encode("utf-8", "replace").decode()

    return shape


def whole(value: Any) -> Any:
    """An integer that every JSON reader can hold, or a boolean."""
    return value if isinstance(value, int) and -MAX_INTEGER < value < MAX_INTEGER else None


def truth(value: Any) -> Any:
    """A boolean."""
    return value if isinstance(value, bool) else None


def scalar(value: Any) -> Any:
    """A short string or an integer: quantities may be either."""
    return _name(value) if isinstance(value, str) else whole(value)


def digits(value: Any) -> str:
    """A resourceVersion: the API server's are decimal numbers. Anything else counts as older than all others."""
    return value if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20 else "0"


def table(**fields: Shape) -> Shape:
    """An object with these fields; a field whose shape gives ``None`` is left out."""

    def shape(value: Any) -> dict[str, Any] | None:
        if not isinstance(value, Mapping):
            return None
        found = {name: field(value[name]) for name, field in fields.items() if name in value}
        return {name: part for name, part in found.items() if part is not None}

    return shape


def each(item: Shape, most: int = MAX_ITEMS) -> Shape:
    """A list of at most ``most`` such items; items of another type are left out."""

    def shape(value: Any) -> list[Any] | None:
        if not isinstance(value, list | tuple):
            return None
        found = [item(entry) for entry in value[:most]]
        return [entry for entry in found if entry is not None]

    return shape


def by_name(value_shape: Shape, most: int = MAX_ITEMS) -> Shape:
    """An object with arbitrary keys."""

    def shape(value: Any) -> dict[str, Any] | None:
        if not isinstance(value, Mapping):
            return None
        found = {str(name)[:253]: value_shape(part) for name, part in list(value.items())[:most]}
        return {name: part for name, part in found.items() if part is not None}

    return shape


_name = text(253)
_time = text(64)
_words = text()


def _identity(value: Any) -> dict[str, Any]:
    """metadata with name, namespace and UID always present: empty if unreadable, and then the object is ignored."""
    found: dict[str, Any] = _METADATA(value) or {}
    return {"name": "", "namespace": "", "uid": "", **found, "resourceVersion": digits(found.get("resourceVersion"))}


_LABELS = table(**dict.fromkeys((RUN_LABEL, ATTEMPT_LABEL, STAGE_LABEL, NODES_LABEL, INDEX_LABEL), _name))
_METADATA = table(
    name=_name,
    namespace=_name,
    uid=_name,
    resourceVersion=_name,
    generation=whole,
    creationTimestamp=_time,
    deletionTimestamp=_time,
    deletionGracePeriodSeconds=whole,
    finalizers=each(_name),
    labels=_LABELS,
    ownerReferences=each(table(kind=_name, name=_name, uid=_name, controller=truth)),
    managedFields=each(table(time=_time)),
)
_CONDITION = table(type=_name, status=_name, reason=_name, message=_words, lastTransitionTime=_time)


def _condition(value: Any) -> Any:
    found = _CONDITION(value)
    return found if found and "type" in found else None


_CONDITIONS = each(_condition)
_ENDED = table(exitCode=whole, reason=_name, message=_words, startedAt=_time, finishedAt=_time)
_STATE = table(waiting=table(reason=_name, message=_words), running=table(startedAt=_time), terminated=_ENDED)
_CONTAINER_STATUSES = each(table(name=_name, state=_STATE, lastState=_STATE))
_CONTAINER = table(name=_name, image=text(1024), restartPolicy=_name, resources=table(limits=by_name(scalar)))
_JOB_TEMPLATE = table(
    metadata=table(labels=_LABELS, annotations=table(**{RUN_ANNOTATION: text(256 * 1024)})),
    spec=table(containers=each(_CONTAINER), restartPolicy=_name),
)

_JOB = table(
    apiVersion=_name,
    kind=_name,
    spec=table(
        suspend=truth,
        managedBy=_name,
        completionMode=_name,
        template=_JOB_TEMPLATE,
        **dict.fromkeys(alterations.FIELDS, whole),
    ),
    status=table(conditions=_CONDITIONS, failed=whole, startTime=_time),
)
_POD = table(
    apiVersion=_name,
    kind=_name,
    spec=table(nodeName=_name, schedulingGates=each(table(name=_name)), initContainers=each(_CONTAINER)),
    status=table(
        phase=_name,
        reason=_name,
        message=_words,
        conditions=_CONDITIONS,
        containerStatuses=_CONTAINER_STATUSES,
        initContainerStatuses=_CONTAINER_STATUSES,
    ),
)
_REQUESTING = table(restartPolicy=_name, resources=table(requests=by_name(scalar)))
_OCCUPANT = table(
    unread=text(1024),
    spec=table(
        containers=each(_REQUESTING), initContainers=each(_REQUESTING), overhead=by_name(scalar), nodeName=_name
    ),
)
_NODE = table(
    spec=table(unschedulable=truth, taints=each(table(key=_name, value=_name, effect=_name))),
    status=table(allocatable=by_name(scalar), conditions=_CONDITIONS),
)
_EVENT = table(
    apiVersion=_name,
    kind=_name,
    type=_name,
    reason=_name,
    message=_words,
    note=_words,
    lastTimestamp=_time,
    eventTime=_time,
    series=table(lastObservedTime=_time),
    involvedObject=table(uid=_name, apiVersion=_name, kind=_name, name=_name),
    regarding=table(uid=_name, apiVersion=_name, kind=_name, name=_name),
)
_RUN = table(apiVersion=_name, kind=_name, unread=text(1024))


def job(body: JsonObject) -> dict[str, Any]:
    """A Job in its shape."""
    return _with_identity(_JOB, body)


def pod(body: JsonObject) -> dict[str, Any]:
    """A Pod in its shape."""
    return _with_identity(_POD, body)


def occupant(body: JsonObject) -> dict[str, Any]:
    """A Pod of anybody's, as far as it takes room on its node."""
    return _with_identity(_OCCUPANT, body)


def node(body: JsonObject) -> dict[str, Any]:
    """A Node, with all of its ``labels``."""
    metadata = body.get("metadata") if isinstance(body, Mapping) else None
    labels = by_name(_name)(metadata.get("labels") if isinstance(metadata, Mapping) else None)
    return {**_with_identity(_NODE, body), "labels": labels or {}}


def event(body: JsonObject) -> dict[str, Any]:
    """An Event in its shape."""
    return _with_identity(_EVENT, body)


def run(body: JsonObject) -> dict[str, Any]:
    """An LMFineTune in its shape: the spec as it is, unless it is too large to be processed."""
    shaped = _with_identity(_RUN, body)
    for name, most in (("spec", MAX_SPEC_BYTES), ("status", MAX_STATUS_BYTES)):
        part = body.get(name) if isinstance(body, Mapping) else None
        if not isinstance(part, Mapping):
            continue
        size, digest = _measure(part)
        if size <= most:
            shaped[name] = part
        elif name == "spec":
            shaped[UNREAD] = f"spec: is {size:,} bytes as JSON, and at most {most:,} are read (SHA-256 {digest})"
    return shaped


SHAPES: dict[str, Callable[[JsonObject], dict[str, Any]]] = {
    KIND: run, "Job": job, "Pod": pod, "Event": event, "Node": node, OCCUPANT: occupant,
}  # fmt: skip
"""Shape by kind."""


def _with_identity(shape: Shape, body: JsonObject) -> dict[str, Any]:
    """The shape of an object with its metadata; anything that is not an object counts as empty."""
    if not isinstance(body, Mapping):
        body = {}
    return {**(shape(body) or {}), "metadata": _identity(body.get("metadata"))}


def _measure(part: JsonObject) -> tuple[int, str]:
    """Size in bytes as JSON, and the beginning of the hash."""
    try:
        data = json.dumps(part, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode("utf-8", "replace")
    except (RecursionError, TypeError, ValueError):
        return 2**63, "unknown"
    return len(data), hashlib.sha256(data).hexdigest()[:12]
