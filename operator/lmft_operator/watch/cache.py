"""The operator's cache of the cluster: fed by watches, by lists and by the responses to its own writes.

A label proves nothing: whoever may create Jobs or Pods, in any namespace, may label them with the UID of a run. A Job
counts only if the run owns it, a Pod only if such a Job owns it, and both only in the namespace of the run. A Job that
was deleted before the operator started is recognized by its name.

Responses to writes enter at once, so a decision is never based on something older than the operator's own writes.
Versions of objects only increase; a deleted object does not return with an older list.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from lmft_api.status.reading import read_status
from lmft_api.text.times import seconds
from lmft_operator.cluster.errors import RestoredError
from lmft_operator.decide.waiting import TOLD
from lmft_operator.domain import kueue, shapes
from lmft_operator.domain.facts import (
    JobFacts,
    JsonObject,
    Key,
    Observed,
    PodFacts,
    ResumeSource,
    RunFacts,
    WarningEvent,
    by_our_clock,
    job_facts,
    pod_facts,
    run_facts,
)
from lmft_operator.watch.waits import Waits

TOMBSTONE_SECONDS = 600.0
MAX_EARLY = 1000
Facts = TypeVar("Facts", JobFacts, PodFacts)


class Cache:
    """All runs, their Jobs and Pods, and the warnings about them. Methods return the run to look at, if any.

    Args:
        clock: UNIX seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.runs: dict[Key, RunFacts] = {}
        self._keys: dict[str, Key] = {}
        self._jobs: dict[str, dict[str, JobFacts]] = {}
        self._pods: dict[str, dict[str, PodFacts]] = {}
        self._job_names: dict[str, dict[str, tuple[str, str]]] = {}
        """By run UID, then Job UID: namespace and name of the Jobs that the run has or had."""
        self._child_of: dict[str, str] = {}
        self._warnings: dict[str, WarningEvent] = {}
        self._early: dict[str, tuple[str, WarningEvent]] = {}
        """Warnings about objects not seen yet, with their namespaces: watches begin in any order."""
        self._waits = Waits(self.runs)
        self._listed: dict[str, int] = {}
        self._tombstones: dict[str, float] = {}
        self.unseen: dict[str, tuple[int, float]] = {}
        """Writes that the watch has not shown yet: UID to version and monotonic time."""

    # ---- input

    def run_seen(self, body: JsonObject, *, watched: bool = True) -> Key | None:
        """Record the current state of a run."""
        facts = run_facts(body)
        if not facts.known:
            return None
        if watched:
            self._arrived(facts.uid, facts.version)
        before = self.runs.get(facts.key)
        if before is not None and before.uid != facts.uid:
            self._forget(before.uid)
            before = None
        if facts.uid in self._tombstones or (before is not None and not _newer(facts, before)):
            return None
        self.runs[facts.key] = facts
        self._keys[facts.uid] = facts.key
        if before is not None and _alike(before, facts):
            return None
        return facts.key

    def newer_than(self, body: JsonObject) -> bool:
        """Whether the cache has a newer version of a run than this one."""
        facts = run_facts(body)
        before = self.runs.get(facts.key)
        return before is not None and before.uid == facts.uid and _newer(before, facts)

    def run_written(self, body: JsonObject) -> None:
        """Record the API server's response to a write to a run: the newest facts, which the watch has yet to show."""
        facts = run_facts(body)
        self._expect(self.runs.get(facts.key), facts)
        self.run_seen(body, watched=False)

    def job_written(self, body: JsonObject) -> None:
        """Record the API server's response to a write to a Job."""
        facts = job_facts(body)
        self._expect(self._jobs.get(facts.run_uid, {}).get(facts.uid), facts)
        self.job_seen(body, watched=False)

    def job_withdrawn(self, body: JsonObject) -> None:
        """Forget a Job that we created and do not use, whatever the watch has shown or will show of it."""
        facts = job_facts(body)
        self._bury(facts.uid)
        self._drop_child(self._jobs, facts)
        self._job_names.get(facts.run_uid, {}).pop(facts.uid, None)

    def buried(self, uid: str) -> bool:
        """Whether an object of this UID was deleted or withdrawn a short while ago."""
        return uid in self._tombstones

    def run_gone(self, body: JsonObject) -> Key | None:
        """Record that a run was deleted."""
        self.run_vanished(run_facts(body))
        return None

    def run_vanished(self, run: RunFacts) -> None:
        """Forget a run that no longer exists, whether the watch has shown it or not."""
        self._bury(run.uid)
        current = self.runs.get(run.key)
        if current is not None and current.uid == run.uid:
            del self.runs[run.key]
        self._forget(run.uid)

    def job_seen(self, body: JsonObject, *, watched: bool = True) -> Key | None:
        """Record the current state of a Job."""
        facts = job_facts(body)
        if not facts.known or facts.owner != facts.run_uid:
            return None
        if watched:
            self._arrived(facts.uid, facts.version)
        if not self._tombstones.keys().isdisjoint((facts.uid, facts.run_uid)):
            return None
        self._job_names.setdefault(facts.run_uid, {})[facts.uid] = (facts.namespace, facts.name)
        return self._child_seen(self._jobs, facts)

    def job_gone(self, body: JsonObject) -> Key | None:
        """Record that a Job was deleted."""
        facts = job_facts(body)
        self._bury(facts.uid)
        self._drop_child(self._jobs, facts)
        return self._key_in(facts)

    def pod_seen(self, body: JsonObject) -> Key | None:
        """Record the current state of a Pod."""
        facts = self._still_owned(pod_facts(body))
        if not facts.known or not facts.owner:
            return None
        return self._child_seen(self._pods, facts)

    def pod_gone(self, body: JsonObject) -> Key | None:
        """Record that a Pod was deleted: its last facts are kept until the status has the end of its attempt."""
        facts = self._still_owned(pod_facts(body, gone_at=self._clock()))
        self._bury(facts.uid)
        key = self._key_in(facts)
        if key is None or not facts.owner:
            self._drop_child(self._pods, facts)
            return None
        self._pods.setdefault(facts.run_uid, {})[facts.uid] = facts
        return key

    def warned(self, body: JsonObject) -> Key | None:
        """Record a Warning Event; only those about our Jobs, their Workloads and Pods are kept."""
        body = shapes.event(body)
        about = body.get("involvedObject") or body.get("regarding") or {}
        uid, namespace = about.get("uid", ""), body["metadata"].get("namespace", "")
        workload = kueue.about(about.get("kind", ""), about.get("apiVersion", ""), namespace, about.get("name", ""))
        uid = workload or uid
        # Other Events, such as a node's about DNS, would replace the one that says what a run waits for.
        if body.get("type") != "Warning" or body.get("reason") not in ((kueue.PENDING,) if workload else TOLD):
            return None
        when = body.get("lastTimestamp") or (body.get("series") or {}).get("lastObservedTime") or body.get("eventTime")
        now = self._clock()
        # An Event dated in the future would take precedence over all that come until then.
        warning = WarningEvent(
            body.get("reason", ""), body.get("message") or body.get("note", ""), min(seconds(when) or now, now)
        )
        run_uid = self._child_of.get(uid)
        key = self._keys.get(run_uid) if run_uid is not None else None
        if run_uid is None:
            self._early[uid] = (namespace, warning)
            while len(self._early) > MAX_EARLY:
                del self._early[next(iter(self._early))]
        before = self._warnings.get(uid)
        if key is None or namespace != key.namespace or (before is not None and before.time > warning.time):
            return None
        self._warnings[uid] = warning
        return key

    def _still_owned(self, facts: PodFacts) -> PodFacts:
        """The pod with the owner it had before, when its Job was deleted without it and the owner reference removed."""
        before = self._pods.get(facts.run_uid, {}).get(facts.uid)
        if facts.owner or before is None:
            return facts
        return replace(facts, owner=before.owner, owner_name=before.owner_name, orphaned=True)

    def _key_in(self, facts: JobFacts | PodFacts) -> Key | None:
        """The run that a child's label names, if it is in the same namespace."""
        key = self._keys.get(facts.run_uid)
        return key if key is not None and key.namespace == facts.namespace else None

    def _child_seen(self, children: dict[str, dict[str, Facts]], facts: Facts) -> Key | None:
        before = children.get(facts.run_uid, {}).get(facts.uid)
        if not self._tombstones.keys().isdisjoint((facts.uid, facts.run_uid)):
            return None
        if before is not None and not _newer(facts, before):
            return None
        if facts.run_uid in self._keys and self._key_in(facts) is None:
            return None
        children.setdefault(facts.run_uid, {})[facts.uid] = facts
        for uid in kueue.ids(facts):
            self._child_of[uid] = facts.run_uid
            namespace, warning = self._early.pop(uid, ("", None))
            if warning is not None and namespace == facts.namespace:
                self._warnings.setdefault(uid, warning)
        if before is not None and _alike(before, facts):
            return None
        return self._key_in(facts)

    # ---- full lists

    def highest_listed(self, kind: str) -> int:
        """The highest version of a list so far; 0 before the first."""
        return self._listed.get(kind, 0)

    def listed(self, kind: str, version: int, before: int) -> None:
        """Record the version of a list.

        Args:
            kind: ``lmfinetunes``, ``jobs`` or ``pods``.
            version: of the list.
            before: :meth:`highest_listed` when the list was requested. A list of many pages has the version of its
                first one to the end, while another one that began later may have come with a higher version.

        Raises:
            RestoredError: an earlier list had a higher version, which means that the database was restored.
        """
        if version < before:
            raise RestoredError(kind, before, version)
        self._listed[kind] = max(version, self.highest_listed(kind))

    def retain(self, kind: str, namespace: str | None, uids: Iterable[str], version: int) -> set[Key]:
        """Remove what a complete list of ``version`` no longer contains; returns the runs to look at.

        Args:
            kind: ``lmfinetunes``, ``jobs`` or ``pods``.
            namespace: namespace that was listed; None for all.
            uids: UIDs of all objects that exist.
            version: resourceVersion of the list; newer objects are kept.
        """
        alive, keys = set(uids), set[Key]()
        if kind == "lmfinetunes":
            for facts in list(self.runs.values()):
                if self._stale(facts, facts.key.namespace, namespace, alive, version):
                    del self.runs[facts.key]
                    self._forget(facts.uid)
            return keys
        # Children of unknown runs are among them, and nothing else would remove those.
        if kind == "jobs":
            for job in [job for jobs in self._jobs.values() for job in jobs.values()]:
                if self._stale(job, job.namespace, namespace, alive, version):
                    self._drop_child(self._jobs, job)
                    keys |= {key for key in (self._keys.get(job.run_uid),) if key is not None}
            return keys
        for pod in [pod for pods in self._pods.values() for pod in pods.values()]:
            if pod.gone or not self._stale(pod, pod.namespace, namespace, alive, version):
                continue
            if (key := self._keys.get(pod.run_uid)) is None:
                self._drop_child(self._pods, pod)
            else:
                self._pods[pod.run_uid][pod.uid] = replace(pod, gone=True, gone_at=self._clock())
                keys.add(key)
        return keys

    @staticmethod
    def _stale(
        facts: RunFacts | JobFacts | PodFacts, where: str, namespace: str | None, alive: set[str], version: int
    ) -> bool:
        return namespace in (None, where) and facts.uid not in alive and int(facts.version) <= version

    # ---- output

    def observe(self, key: Key, now: float) -> Observed | None:
        """Everything known about one run; None when it does not exist."""
        run = self.runs.get(key)
        if run is None:
            return None
        jobs = tuple(job for job in self._jobs.get(run.uid, {}).values() if job.namespace == run.key.namespace)
        pods = tuple(
            pod
            for pod in self._pods.get(run.uid, {}).values()
            if pod.namespace == run.key.namespace and self._owned(run, pod)
        )
        pods = tuple(by_our_clock(pod, now) for pod in pods)
        uids = [*(uid for job in jobs for uid in kueue.ids(job)), *(pod.uid for pod in pods)]
        warnings = {uid: self._warnings[uid] for uid in uids if uid in self._warnings}
        return Observed(run=run, status=read_status(run.status), now=now, jobs=jobs, pods=pods, warnings=warnings)

    def job_names(self, run: RunFacts) -> dict[int, str]:
        """Names of the run's Jobs, by attempt number."""
        return {
            job.attempt: job.name for job in self._jobs.get(run.uid, {}).values() if job.namespace == run.key.namespace
        }

    def _owned(self, run: RunFacts, pod: PodFacts) -> bool:
        """Whether a Job of the run owns a pod; a Job that was never seen counts if the status lists its name."""
        found = self._job_names.get(run.uid, {})
        names = {uid: name for uid, (namespace, name) in found.items() if namespace == run.key.namespace}
        if pod.owner in names:
            return True
        return pod.owner_name not in names.values() and f'"job":"{pod.owner_name}"' in run.status

    def key_of(self, run_uid: str) -> Key | None:
        """The run with this UID, if it exists."""
        return self._keys.get(run_uid)

    def family(self, pod_uid: str) -> tuple[Key | None, tuple[PodFacts, ...], tuple[JobFacts, ...]]:
        """The run that a pod's label names, with its known Pods and Jobs; nothing for an unknown pod."""
        run_uid = self._child_of.get(pod_uid, "")
        pods, jobs = self._pods.get(run_uid, {}), self._jobs.get(run_uid, {})
        return self._keys.get(run_uid), tuple(pods.values()), tuple(jobs.values())

    def source(self, waiting: Key, name: str) -> ResumeSource:
        """The run that ``waiting`` wants to start from; when that run changes, ``waiting`` is looked at again."""
        return self._waits.source(waiting, name)

    def dependants(self, key: Key) -> set[Key]:
        """Runs that wait for this one and for which it has changed; its progress by a step is not such a change."""
        return self._waits.dependants(key)

    def settle(self, run_uid: str, attempts: Iterable[int]) -> None:
        """Forget the last facts of deleted pods whose attempts are recorded as ended."""
        done = set(attempts)
        for pod in list(self._pods.get(run_uid, {}).values()):
            if pod.gone and pod.attempt in done:
                self._drop_child(self._pods, pod)

    def prune(self) -> None:
        """Remove expired tombstones, warnings and waits."""
        horizon = time.monotonic() - TOMBSTONE_SECONDS
        self._tombstones = {uid: since for uid, since in self._tombstones.items() if since > horizon}
        self._warnings = {uid: warning for uid, warning in self._warnings.items() if uid in self._child_of}
        self._waits.prune()

    def _expect(self, before: RunFacts | JobFacts | None, facts: RunFacts | JobFacts) -> None:
        # The watch may be faster than the response: then there is nothing left to wait for.
        if facts.uid in self._tombstones:
            return
        if before is None or before.uid != facts.uid or _newer(facts, before):
            self.unseen[facts.uid] = (int(facts.version), time.monotonic())

    def _arrived(self, uid: str, version: str) -> None:
        expected = self.unseen.get(uid)
        if expected is not None and int(version) >= expected[0]:
            del self.unseen[uid]

    def _bury(self, uid: str) -> None:
        self._tombstones[uid] = time.monotonic()
        self.unseen.pop(uid, None)

    def _forget(self, run_uid: str) -> None:
        self._keys.pop(run_uid, None)
        self.unseen.pop(run_uid, None)
        self._job_names.pop(run_uid, None)
        for job in self._jobs.pop(run_uid, {}).values():
            self._drop_notes(job)
        for pod in self._pods.pop(run_uid, {}).values():
            self._drop_notes(pod)

    def _drop_child(self, children: dict[str, dict[str, Facts]], facts: Facts) -> None:
        """Remove a Job or a Pod; with the last one, also the run's entry."""
        siblings = children.get(facts.run_uid, {})
        siblings.pop(facts.uid, None)
        if not siblings:
            children.pop(facts.run_uid, None)
        if facts.run_uid not in self._keys and facts.run_uid not in self._jobs:
            self._job_names.pop(facts.run_uid, None)
        self._drop_notes(facts)

    def _drop_notes(self, facts: JobFacts | PodFacts) -> None:
        """Remove what is kept about a child besides its facts."""
        for uid in kueue.ids(facts):
            self._child_of.pop(uid, None)
            self._warnings.pop(uid, None)
            self.unseen.pop(uid, None)


def _newer(facts: RunFacts | JobFacts | PodFacts, before: RunFacts | JobFacts | PodFacts) -> bool:
    return int(facts.version) > int(before.version)


def _alike(before: RunFacts | JobFacts | PodFacts, after: RunFacts | JobFacts | PodFacts) -> bool:
    """Whether only the version differs."""
    return all(getattr(before, name) == getattr(after, name) for name in type(before).__slots__ if name != "version")
