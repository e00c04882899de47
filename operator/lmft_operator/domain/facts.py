"""Facts about Kubernetes objects, reduced to what decisions need: typed, small, without the rest of the API object.

A watch of a few thousand runs holds one of these for each resource, Job and Pod, so they are slotted and keep no raw
objects. Times are UNIX seconds.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from lmft_api import KIND
from lmft_api.status import LMFineTuneStatus
from lmft_api.text.times import seconds
from lmft_api.wire.run_file import ATTEMPT_LABEL, INDEX_LABEL, NODES_LABEL, RUN_LABEL, STAGE_LABEL, Stage
from lmft_operator.domain import alterations, containers, shapes

JsonObject = Mapping[str, Any]
MAX_NODES = 1024
NODE_CLOCK_SECONDS = 300.0
"""A node's clock that is off by more than this many seconds is wrong."""


class Key(NamedTuple):
    """Namespace and name of an LMFineTune."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class RunFacts:
    """An LMFineTune; spec and status as JSON text, which takes a tenth of the memory of parsed objects."""

    key: Key
    uid: str
    version: str
    generation: int
    created: float
    deleting: bool
    spec: str
    status: str
    orphans: bool = False
    """Whether it is being deleted without its Jobs (``--cascade=orphan``)."""
    unread: str = ""
    """Why its spec was not read: too large or nested too deep; empty when it was read."""
    resumes: str = ""
    """Name of the run that spec.resumeFrom names."""

    @property
    def known(self) -> bool:
        """Whether namespace, name and UID could be read."""
        return bool(self.uid and self.key.name and self.key.namespace)


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A Job of ours."""

    name: str
    uid: str
    version: str
    run_uid: str
    attempt: int
    stage: Stage
    created: float
    gpus: int
    suspended: bool = False
    deleting: bool = False
    complete: bool = False
    failed: bool = False
    failed_pods: int = 0
    """Pods that its controller counts as failed; after one it never makes another."""
    message: str = ""
    started: float | None = None
    """When it was last started; a queue that preempts and readmits it starts it again."""
    ended: float | None = None
    touched: float | None = None
    """When anybody last wrote to it, its controller included."""
    namespace: str = ""
    owner: str = ""
    """UID of the run that its owner reference names as controller."""
    altered: str = ""
    """What the cluster's policies have changed in it; empty when nothing that matters."""
    repeats: bool = False
    """Whether its controller may replace a pod that failed."""
    managed_by: str = ""
    """The controller that a policy has given it in place of Kubernetes' own; empty for that one."""
    spec_hash: str = ""
    """Hash of the spec in the run file that its pods are given; empty where it cannot be read."""
    image: str = ""
    """Image of our container."""
    nodes: int = 1
    """Pods that train together."""

    @property
    def known(self) -> bool:
        """Whether namespace, name and UID could be read."""
        return bool(self.uid and self.name and self.namespace)

    @property
    def finished(self) -> bool:
        """Whether the Job controller has recorded its end."""
        return self.complete or self.failed


@dataclass(frozen=True, slots=True)
class PodFacts:
    """A Pod of one of our Jobs. ``gone``: it no longer exists; these are its last known facts."""

    name: str
    uid: str
    version: str
    run_uid: str
    attempt: int
    phase: str
    created: float
    reason: str = ""
    message: str = ""
    node: str = ""
    deleted: float | None = None
    """metadata.deletionTimestamp: when its grace period ends, not when the deletion was requested."""
    asked_to_end: float | None = None
    """When its deletion was requested."""
    index: int = 0
    """Its number among the pods of its attempt."""
    disruption: str = ""
    """Message of the DisruptionTarget condition; empty without that condition."""
    unschedulable: str = ""
    """The scheduler's message while no node fits."""
    unschedulable_since: float | None = None
    """Since when none does."""
    gates: str = ""
    """Scheduling gates that keep the scheduler from considering it."""
    sandboxed: bool = False
    """Whether its volumes are mounted and its network is ready."""
    waiting_reason: str = ""
    waiting_message: str = ""
    """State of our container; of an init container, with its name, if that one keeps ours from starting."""
    init_failed: str = ""
    """Message about the init container whose failure kept ours from starting."""
    running_others: str = ""
    """Names of the other containers that are running."""
    started: float | None = None
    finished: float | None = None
    exit_code: int | None = None
    exit_reason: str = ""
    log_tail: str = ""
    owner: str = ""
    """UID of the Job that its owner reference names as controller; empty for a controller of another kind."""
    owner_name: str = ""
    """Name of that Job."""
    orphaned: bool = False
    """Whether its Job was deleted without it (``--cascade=orphan``), so that no Job can stop it."""
    gone: bool = False
    gone_at: float = 0.0
    """When its deletion was noticed."""
    namespace: str = ""

    @property
    def known(self) -> bool:
        """Whether namespace, name and UID could be read."""
        return bool(self.uid and self.name and self.namespace)

    @property
    def ended(self) -> bool:
        """Whether our container is no longer running."""
        return self.over or self.exit_code is not None

    @property
    def over(self) -> bool:
        """Whether no container is running any more: its resources on the node are free."""
        return self.gone or self.phase in ("Succeeded", "Failed")


def by_our_clock(pod: PodFacts, now: float) -> PodFacts:
    """The Pod with times corrected for a wrong node clock: a start is not before the Pod's creation nor after now.

    A node's clock may be off by days, and deadlines, back-offs and usage are computed from its times. Ordinary small
    differences between clocks are left alone.
    """
    if pod.started is None and pod.finished is None:
        return pod
    first, last = (each for each in (pod.started or pod.finished, pod.finished or pod.started) if each is not None)
    shift = pod.created - first if first < pod.created else min(0.0, now - last)
    if abs(shift) < NODE_CLOCK_SECONDS:
        return pod
    started, finished = (None if each is None else min(each + shift, now) for each in (pod.started, pod.finished))
    return replace(pod, started=started, finished=finished)


@dataclass(frozen=True, slots=True)
class WarningEvent:
    """The newest Warning Event about a Job or a Pod of ours."""

    reason: str
    message: str
    time: float


@dataclass(frozen=True, slots=True)
class ResumeSource:
    """What is needed of the run that ``spec.resumeFrom`` names."""

    exists: bool
    ended: bool = False
    uri: str | None = None
    """Address of its model; of its newest checkpoint if it ended without a model."""
    circle: tuple[str, ...] = ()
    """Names of the runs that wait for each other in a cycle, the asking run first; empty when there is no cycle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything that a decision is based on."""

    run: RunFacts
    status: LMFineTuneStatus
    """Status of the run, as much as can be read of it."""
    now: float
    jobs: tuple[JobFacts, ...] = ()
    pods: tuple[PodFacts, ...] = ()
    warnings: Mapping[str, WarningEvent] = field(default_factory=dict)
    """By the UID of the Job or Pod that they are about."""
    source: ResumeSource | None = None
    room: int | None = None
    """How many more pods of the run the nodes could take, counted up to what it misses; None if nobody looked."""


def run_facts(body: JsonObject) -> RunFacts:
    """Facts of an LMFineTune as the API server sends it. Never fails: what cannot be read counts as absent.

    The same holds for Jobs and Pods; an object without a readable name, namespace and UID gets empty ones.
    """
    body = shapes.run(body)
    metadata, spec = body["metadata"], body.get("spec") or {}
    source = spec.get("resumeFrom")
    return RunFacts(
        key=Key(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        generation=metadata.get("generation", 1),
        created=seconds(metadata.get("creationTimestamp")) or 0.0,
        deleting="deletionTimestamp" in metadata,
        spec=_dump(spec),
        status=_dump(body.get("status") or {}),
        orphans="orphan" in metadata.get("finalizers", ()),
        unread=body.get(shapes.UNREAD, ""),
        resumes=source["name"] if isinstance(source, dict) and isinstance(source.get("name"), str) else "",
    )


def job_facts(body: JsonObject) -> JobFacts:
    """Facts of a Job of ours."""
    body = shapes.job(body)
    metadata, spec, status = body["metadata"], body.get("spec", {}), body.get("status", {})
    labels = metadata.get("labels", {})
    conditions = {c["type"]: c for c in status.get("conditions", ()) if c.get("status") == "True"}
    end = conditions.get("Failed") or conditions.get("Complete") or {}
    template = spec.get("template", {})
    container = containers.named(template.get("spec", {}).get("containers", ()))
    nodes = min(max(1, _number(labels, NODES_LABEL, 1)), MAX_NODES)
    return JobFacts(
        name=metadata["name"],
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        run_uid=labels.get(RUN_LABEL, ""),
        attempt=_attempt(labels),
        stage=_stage(labels),
        created=seconds(metadata.get("creationTimestamp")) or 0.0,
        gpus=containers.gpus(container),
        # The condition is removed a moment after the field; until then the Job's pods are those from before.
        suspended=bool(spec.get("suspend")) or "Suspended" in conditions,
        deleting="deletionTimestamp" in metadata,
        complete="Complete" in conditions,
        failed="Failed" in conditions,
        failed_pods=status.get("failed", 0),
        message=end.get("message", ""),
        started=seconds(status.get("startTime")),
        ended=seconds(end.get("lastTransitionTime")),
        touched=max(filter(None, (seconds(w.get("time")) for w in metadata.get("managedFields", ()))), default=None),
        namespace=sys.intern(metadata["namespace"]),
        owner=_owner(metadata),
        spec_hash=containers.spec_hash(template.get("metadata", {}).get("annotations", {})),
        image=sys.intern(container.get("image", "")),
        altered=alterations.altered(spec, nodes),
        nodes=nodes,
        repeats=alterations.repeats(spec),
        managed_by=sys.intern(alterations.managed_by(spec)),
    )


def pod_facts(body: JsonObject, *, gone_at: float | None = None) -> PodFacts:
    """Facts of a Pod of ours, ``gone_at`` for its last ones.

    Our container is found by its name: admission may have added others before, beside and after it.
    """
    body = shapes.pod(body)
    metadata, status, spec = body["metadata"], body.get("status", {}), body.get("spec", {})
    labels = metadata.get("labels", {})
    conditions = {c["type"]: c for c in status.get("conditions", ())}
    scheduled, disruption = conditions.get("PodScheduled", {}), conditions.get("DisruptionTarget", {})
    inits, others = status.get("initContainerStatuses", ()), status.get("containerStatuses", ())
    state: JsonObject = containers.named(others).get("state", {})
    waiting, ended = state.get("waiting", {}), state.get("terminated")
    running = state.get("running", {})
    held = containers.blocked_init(inits) if not (running or ended) else {}
    deleted, unschedulable = seconds(metadata.get("deletionTimestamp")), _unschedulable(scheduled)
    return PodFacts(
        name=metadata["name"],
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        run_uid=labels.get(RUN_LABEL, ""),
        attempt=_attempt(labels),
        phase=status.get("phase", "Pending"),
        created=seconds(metadata.get("creationTimestamp")) or 0.0,
        reason=status.get("reason", ""),
        message=status.get("message", ""),
        node=spec.get("nodeName", ""),
        deleted=deleted,
        asked_to_end=None if deleted is None else deleted - metadata.get("deletionGracePeriodSeconds", 0),
        index=_number(labels, INDEX_LABEL, 0),
        disruption=disruption.get("message", "disrupted") if disruption.get("status") == "True" else "",
        unschedulable=unschedulable,
        unschedulable_since=seconds(scheduled.get("lastTransitionTime")) if unschedulable else None,
        gates=", ".join(gate.get("name", "") for gate in spec.get("schedulingGates", ())),
        sandboxed=conditions.get("PodReadyToStartContainers", {}).get("status") == "True",
        waiting_reason=held.get("reason") or waiting.get("reason", ""),
        waiting_message=held.get("message") or waiting.get("message", ""),
        init_failed=containers.failed_init(inits, spec.get("initContainers", ())) if not ended else "",
        running_others=containers.running_others(others),
        started=seconds(running.get("startedAt") or (ended or {}).get("startedAt")),
        finished=seconds((ended or {}).get("finishedAt")),
        exit_code=ended.get("exitCode") if ended else None,
        exit_reason=(ended or {}).get("reason", ""),
        log_tail=(ended or {}).get("message", ""),
        owner=_owner(metadata, "Job"),
        owner_name=_owner(metadata, "Job", "name"),
        gone=gone_at is not None,
        gone_at=gone_at or 0.0,
        namespace=sys.intern(metadata["namespace"]),
    )


def _unschedulable(scheduled: JsonObject) -> str:
    # The message about gates stays for a moment after they are removed, until the scheduler has tried.
    looked = scheduled.get("status") == "False" and scheduled.get("reason") != "SchedulingGated"
    return str(scheduled.get("message", "")) if looked else ""


def _owner(metadata: JsonObject, kind: str = KIND, field: str = "uid") -> str:
    owners = metadata.get("ownerReferences", ())
    return next((o.get(field, "") for o in owners if o.get("controller") and o.get("kind") == kind), "")


def _attempt(labels: JsonObject) -> int:
    return _number(labels, ATTEMPT_LABEL, 0)


def _number(labels: JsonObject, name: str, otherwise: int) -> int:
    text = str(labels.get(name, ""))
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else otherwise


def _stage(labels: JsonObject) -> Stage:
    text = str(labels.get(STAGE_LABEL, ""))
    return Stage(text) if text in Stage.__members__.values() else Stage.ALL


def _dump(body: Any) -> str:
    return json.dumps(body, separators=(",", ":"), sort_keys=True)
