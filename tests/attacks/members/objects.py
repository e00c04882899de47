"""Objects of the API server into which somebody wrote what the operator does not expect.

Each attempt is made on an operator's cache that knows a bystander: another run, with a Job and a Pod. The effect would
be an exception, or that the bystander is not seen as before.
"""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

from attacks.registry import Attack
from lmft_api.wire.run_file import RUN_ANNOTATION
from lmft_operator.domain.facts import Key
from lmft_operator.watch.cache import Cache

Json = Any
BYSTANDER = Key("calm", "bystander")
RUN_UID, JOB_UID = "11111111-0000-4000-8000-000000000001", "11111111-0000-4000-8000-000000000002"

HOSTILE: dict[str, Json] = {
    "nothing": None,
    "true": True,
    "minus one": -1,
    "an integer of 400 digits": 10**400,
    "a fraction": 1e308,
    "no number": float("nan"),
    "an empty text": "",
    "a megabyte of text": "x" * 1_000_000,
    "half a character": "\ud800",
    "control characters": "\x00\x1b[2J\r\n::error::",
    "an empty list": [],
    "a list of nothing": [None],
    "a list of lists": [[[[]]]],
    "a list of texts": ["a", "b"],
    "a list of numbers": [1, 2],
    "100,000 empty objects": [{}] * 100_000,
    "an empty object": {},
    "an object of nothing": {"": None},
    "an object of objects": {"name": {"name": {}}, "type": [], "status": {}, "time": []},
    "the year 10000": "10000-01-01T00:00:00Z",
    "the last second": "9999-12-31T23:59:59Z",
    "a second before": "9999-12-31T23:59:59-23:59",
    "the year 0": "0000-01-01T00:00:00Z",
    "a day without an hour": "2026-02-30",
    "a time that is a list": [["2026-01-01T00:00:00Z"]],
    "digits of another alphabet": "٣٤",
    "a power": "²",
    "a version beyond all": "9" * 40,
    "the largest integer": 2**63 - 1,
}


def attacks() -> Iterator[Attack]:
    """Every value at every place of a real object of each kind, and the place taken out."""
    for kind, (body, seen) in objects().items():
        for path in places(body):
            where = ".".join(map(str, path))
            for what, value in HOSTILE.items():
                yield Attack(f"{kind}: {where} is {what}", attempt(seen, put(body, path, value)))
            yield Attack(f"{kind}: {where} is missing", attempt(seen, taken_out(body, path)))


def objects() -> dict[str, tuple[Json, Callable[[Cache], Callable[[Json], Any]]]]:
    """A real object of each kind, and where it is taken in."""
    return {
        "LMFineTune": (run("team", "own", "run-1"), lambda cache: cache.run_seen),
        "LMFineTune deleted": (run("team", "own", "run-1"), lambda cache: cache.run_gone),
        "Job": (job("team", "own-1", "job-1", "run-1"), lambda cache: cache.job_seen),
        "Job deleted": (job("team", "own-1", "job-1", "run-1"), lambda cache: cache.job_gone),
        "Pod": (pod("team", "own-1-x", "pod-1", "run-1", "own-1", "job-1"), lambda cache: cache.pod_seen),
        "Pod deleted": (pod("team", "own-1-x", "pod-1", "run-1", "own-1", "job-1"), lambda cache: cache.pod_gone),
        "Event": (event("team", "job-1"), lambda cache: cache.warned),
    }


def attempt(seen: Callable[[Cache], Callable[[Json], Any]], body: Json) -> Callable[[], str | None]:
    """Show an object to a cache that knows a bystander, and look at that one."""

    def act() -> str | None:
        cache = peaceful()
        before = cache.observe(BYSTANDER, 0.0)
        seen(cache)(body)
        for key in list(cache.runs):
            cache.observe(key, 0.0)
        cache.prune()
        return None if cache.observe(BYSTANDER, 0.0) == before else "the bystander is seen otherwise"

    return act


def peaceful() -> Cache:
    """A cache that knows a run of somebody else's, and the one that is under attack."""
    cache = Cache()
    cache.run_seen(run(BYSTANDER.namespace, BYSTANDER.name, RUN_UID))
    cache.job_seen(job(BYSTANDER.namespace, "bystander-1", JOB_UID, RUN_UID))
    cache.pod_seen(pod(BYSTANDER.namespace, "bystander-1-x", "pod-2", RUN_UID, "bystander-1", JOB_UID))
    cache.run_seen(run("team", "own", "run-1"))
    cache.job_seen(job("team", "own-1", "job-1", "run-1"))
    return cache


def run(namespace: str, name: str, uid: str) -> Json:
    """An LMFineTune with a status."""
    return {
        "apiVersion": "lmfinetune.dev/v1alpha1",
        "kind": "LMFineTune",
        "metadata": {**identity(namespace, name, uid), "generation": 1, "finalizers": ["orphan"]},
        "spec": {"model": {"name": "gpt2"}, "dataset": {"name": "d"}, "resumeFrom": {"name": "other"}},
        "status": {
            "phase": "Training",
            "attempts": [{"number": 1, "job": f"{name}-1", "stage": "All"}],
            "conditions": [{"type": "Succeeded", "status": "Unknown", "reason": "Training"}],
        },
    }


def job(namespace: str, name: str, uid: str, run_uid: str) -> Json:
    """A Job as its controller leaves it."""
    owner = {"apiVersion": "lmfinetune.dev/v1alpha1", "kind": "LMFineTune", "name": "own", "uid": run_uid}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            **identity(namespace, name, uid),
            "labels": labels(run_uid),
            "ownerReferences": [{**owner, "controller": True}],
            "managedFields": [{"manager": "m", "operation": "Update", "time": "2026-11-01T10:00:00Z", "fieldsV1": {}}],
        },
        "spec": {
            "suspend": False,
            "template": {
                "metadata": {"annotations": {RUN_ANNOTATION: json.dumps({"spec": {}})}},
                "spec": {
                    "containers": [
                        {"name": "job", "image": "i", "resources": {"limits": {"nvidia.com/gpu": "1", "cpu": 1}}}
                    ]
                },
            },
        },
        "status": {
            "startTime": "2026-11-01T10:00:00Z",
            "failed": 1,
            "conditions": [
                {
                    "type": "Failed",
                    "status": "True",
                    "reason": "r",
                    "message": "m",
                    "lastTransitionTime": "2026-11-01T10:00:00Z",
                }
            ],
        },
    }


def pod(namespace: str, name: str, uid: str, run_uid: str, job_name: str, job_uid: str) -> Json:
    """A Pod as kubelet leaves it."""
    times = {"startedAt": "2026-11-01T10:00:00Z", "finishedAt": "2026-11-01T10:10:00Z"}
    ended = {"exitCode": 1, "reason": "Error", "message": "last words", **times}
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job_name, "uid": job_uid, "controller": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **identity(namespace, name, uid),
            "labels": labels(run_uid),
            "ownerReferences": [owner],
            "deletionTimestamp": "2026-11-01T10:00:00Z",
        },
        "spec": {
            "nodeName": "node-1",
            "schedulingGates": [{"name": "gate"}],
            "initContainers": [{"name": "init", "restartPolicy": "Always"}],
        },
        "status": {
            "phase": "Failed",
            "reason": "Evicted",
            "message": "m",
            "conditions": [
                {"type": "PodScheduled", "status": "False", "message": "m"},
                {"type": "DisruptionTarget", "status": "True", "message": "m"},
            ],
            "containerStatuses": [
                {"name": "mesh", "state": {"running": {"startedAt": "2026-11-01T10:00:00Z"}}},
                {"name": "job", "state": {"terminated": ended}},
            ],
            "initContainerStatuses": [
                {
                    "name": "init",
                    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "m"}},
                    "lastState": {"terminated": ended},
                }
            ],
        },
    }


def event(namespace: str, about: str) -> Json:
    """A Warning about a Job."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": identity(namespace, "own.1", "event-1"),
        "involvedObject": {"kind": "Job", "uid": about, "namespace": namespace, "name": "own-1"},
        "type": "Warning",
        "reason": "FailedCreate",
        "message": "quota",
        "lastTimestamp": "2026-11-01T10:00:00Z",
        "eventTime": "2026-11-01T10:00:00.000000Z",
        "series": {"count": 2, "lastObservedTime": "2026-11-01T10:00:00.000000Z"},
    }


def identity(namespace: str, name: str, uid: str) -> Json:
    """metadata that every object has."""
    return {
        "namespace": namespace,
        "name": name,
        "uid": uid,
        "resourceVersion": "100",
        "creationTimestamp": "2026-11-01T10:00:00Z",
    }


def labels(run_uid: str) -> Json:
    """Of a child of a run."""
    return {"lmfinetune.dev/run-uid": run_uid, "lmfinetune.dev/attempt": "1", "lmfinetune.dev/stage": "All"}


def places(body: Json, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in an object, the whole of it first."""
    yield path
    parts = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for name, part in parts:
        yield from places(part, (*path, name))


def put(body: Json, path: tuple[Any, ...], value: Json) -> Json:
    """A copy of an object with another value at a place."""
    if not path:
        return value
    changed = copy.deepcopy(body)
    at = changed
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    return changed


def taken_out(body: Json, path: tuple[Any, ...]) -> Json:
    """A copy of an object without a place."""
    if not path:
        return {}
    changed = copy.deepcopy(body)
    at = changed
    for name in path[:-1]:
        at = at[name]
    del at[path[-1]]
    return changed
