"""What was seen of the runs while faults came down on them, and what in it must not be. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Checkpoint = tuple[int, int]
"""Attempt and step."""

RUN, ATTEMPT = "lmfinetune.dev/run-uid", "lmfinetune.dev/attempt"
INDEX = "batch.kubernetes.io/job-completion-index"
"""Labels of Jobs and pods."""


@dataclass(frozen=True)
class Live:
    """A pod that has not ended, or a Job that may yet make one.

    Attributes:
        attempt: number of the attempt that it belongs to.
        uid: its own.
        pod: whether it is a pod.
        fenced: seconds past the end of its grace period, for a pod that is marked for deletion; else None.
        job: UID of its Job, or its own.
        index: number of the pod among those of an attempt on several nodes.
    """

    attempt: int
    uid: str
    pod: bool = True
    fenced: float | None = None
    job: str = ""
    index: int = 0


def live_attempts(jobs: Collection[Mapping[str, Any]], pods: Collection[Mapping[str, Any]], now: float) -> list[Live]:
    """The pods of one run that have not ended, and its Jobs that may yet make one; by attempt, the oldest first.

    Each counts by itself: an attempt with two Jobs, or with two pods, is there twice.

    Args:
        jobs: of the run, as the API server gives them, listed before the pods.
        pods: of the run.
        now: UNIX seconds.
    """
    found: list[tuple[int, str, Live]] = []
    with_pod = {owner["uid"] for pod in pods for owner in pod["metadata"].get("ownerReferences", ())}
    for job in jobs:
        status = job.get("status", {})
        over = any(c["type"] in ("Complete", "Failed", "FailureTarget", "SuccessCriteriaMet")
                   for c in status.get("conditions", ()) if c["status"] == "True")  # fmt: skip
        counted = (
            status.get("failed") or status.get("succeeded") or any(status.get("uncountedTerminatedPods", {}).values())
        )
        about = job["metadata"]
        if not over and not counted and "deletionTimestamp" not in about and about["uid"] not in with_pod:
            live = Live(number_of(job), about["uid"], pod=False, job=about["uid"])
            found.append((live.attempt, about["creationTimestamp"], live))
    for pod in pods:
        about, deadline = pod["metadata"], pod["metadata"].get("deletionTimestamp")
        if not _ended(pod):
            fenced = now - unix(deadline) if deadline else None
            job = next((owner["uid"] for owner in about.get("ownerReferences", ())), "")
            live = Live(number_of(pod), about["uid"], True, fenced, job, int(about["labels"].get(INDEX, 0)))
            found.append((live.attempt, about["creationTimestamp"], live))
    return [live for *_, live in sorted(found, key=lambda entry: entry[:2])]


def _ended(pod: Mapping[str, Any]) -> bool:
    status = pod.get("status", {})
    states = [entry.get("state", {}) for entry in status.get("containerStatuses", ())]
    return status.get("phase") in ("Succeeded", "Failed") or any("terminated" in state for state in states)


def number_of(body: Mapping[str, Any]) -> int:
    """Which attempt a Job or a pod is."""
    return int(body["metadata"]["labels"][ATTEMPT])


def unix(timestamp: str) -> float:
    """UNIX seconds of an RFC 3339 time."""
    return datetime.fromisoformat(timestamp).timestamp()


def two_at_once(live: Sequence[Live], before: Sequence[Live], margin: float) -> str | None:
    """What is wrong with the live Jobs and pods of a run, if anything.

    One is allowed, or one for each number of an Indexed Job; and older pods that did not end though their grace period
    and a margin are over, as on a node that nobody hears of. These are fenced: each attempt writes in a folder of its
    own.

    Args:
        live: in this look.
        before: in the look before. Jobs and pods are two lists, and much may happen between them: an older Job without
            a pod counts when it is there beside something newer twice in a row.
        margin: seconds.
    """
    twice, peers = {a.uid for a in before[:-1]}, _peers(live)
    older = [a for a in live[:-1] if a.uid not in peers]
    unfenced = [a for a in older if (a.pod or a.uid in twice) and (a.fenced is None or a.fenced < margin)]
    return f"attempts {[a.attempt for a in live]} are live at once" if unfenced else None


def _peers(live: Sequence[Live]) -> set[str]:
    """The pods of the newest one's Job, the newest of each number."""
    return set({a.index: a.uid for a in live if a.pod and a.job and a.job == live[-1].job}.values())


@dataclass
class RunHistory:
    """One run, as far as it was watched.

    Attributes:
        every: steps between two checkpoints.
        keep: complete checkpoints that stay while it runs.
        there: complete checkpoints in storage when it was looked at last.
        verified: complete checkpoints whose files were compared with their SHA-256.
        looks: time of each look into storage that found another set of checkpoints than before, and the set.
        steps: highest step that each attempt is known to have done.
        resumed: step that each attempt is known to have gone on from.
        live: live Jobs and pods in the look before.
        fenced: attempts with a pod that outlived its grace period and the margin.
        done: when the report was seen first, UNIX seconds; attempts after that only read it.
        violations: what must not have been.
    """

    every: int
    keep: int = 2
    there: frozenset[Checkpoint] = frozenset()
    verified: set[Checkpoint] = field(default_factory=set)
    looks: list[tuple[float, frozenset[Checkpoint]]] = field(default_factory=list)
    steps: dict[int, int] = field(default_factory=dict)
    resumed: dict[int, int] = field(default_factory=dict)
    live: Sequence[Live] = ()
    fenced: set[int] = field(default_factory=set)
    done: float | None = None
    violations: list[str] = field(default_factory=list)

    def storage_seen(self, now: float, found: frozenset[Checkpoint], done: bool) -> None:
        """A look into storage: what was there must still be, or have been pruned for newer ones.

        Args:
            now: when the look began, UNIX seconds.
            found: complete checkpoints.
            done: whether the run's report is there, so that one checkpoint is enough.
        """
        keep = 1 if done else self.keep
        for lost in sorted(self.there - found):
            newer = [checkpoint for checkpoint in found if newness(checkpoint) > newness(lost)]
            if len(newer) < keep:
                self._wrong(f"checkpoint {name(lost)} is gone, though only {len(newer)} are newer")
        if done and self.done is None:
            self.done = now
        if found != self.there:
            self.looks.append((now, found))
        for attempt, step in found:
            self.reached(attempt, step)
        self.there = found

    def damaged(self, checkpoint: Checkpoint, what: str) -> None:
        """A complete checkpoint is not what its manifest says."""
        self._wrong(f"checkpoint {name(checkpoint)}: {what}")

    def cluster_seen(self, live: Sequence[Live], margin: float) -> None:
        """A look at Jobs and pods."""
        self.fenced |= {a.attempt for a in live if a.fenced is not None and a.fenced >= margin}
        if problem := two_at_once(live, self.live, margin):
            self._wrong(problem)
        self.live = live

    def reached(self, attempt: int, step: int) -> None:
        """An attempt is known to have done a step."""
        self.steps[attempt] = max(step, self.steps.get(attempt, 0))

    def repeated(self, attempts: Sequence[Mapping[str, Any]]) -> int:
        """Steps that were done in vain, over all attempts of the status; notes what must not have been.

        An attempt begins at the newest checkpoint that was seen before it started, or at a newer one; what a fenced
        attempt wrote after its successor had begun does not count. What the one before had done beyond it is at most
        an interval, and the steps during the upload in flight: another interval, for a checkpoint waits for the upload
        before it.
        """
        total = 0
        starts = {entry["number"]: unix(entry["startTime"]) for entry in attempts if entry.get("startTime")}
        late = self._written_late(starts)
        for entry in attempts:
            number = entry["number"]
            started = starts.get(number)
            if self.done is not None and started is not None and started > self.done:
                continue
            reported = entry.get("resumedFromStep")
            begun = self.resumed.get(number, reported)
            if reported is not None and begun != reported:
                self._wrong(f"attempt {number} went on from {begun}, its status says {reported}")
            if begun is None:
                if number not in self.steps:
                    continue  # it ended before it trained
                begun = 0
            earlier = [other for other in self.steps if other < number]
            if earlier:
                total += max(0, self.steps[max(earlier)] - begun)
            before = max((self.steps[other] for other in earlier), default=0)
            worst = max(before - begun, entry.get("lostSteps") or 0)
            if worst > 2 * self.every:
                self._wrong(f"attempt {number} repeats {worst} steps, more than two intervals of {self.every}")
            newest = self._newest_before(started, late) if started is not None else None
            if newest is not None and begun < newest[1]:
                self._wrong(f"attempt {number} went on from {begun}, though checkpoint {name(newest)} was there")
        return total

    def _newest_before(self, moment: float, late: Collection[Checkpoint]) -> Checkpoint | None:
        known = [found for seen, found in self.looks if seen < moment]
        return max(known[-1].difference(late), key=newness, default=None) if known else None

    def _written_late(self, starts: Mapping[int, float]) -> set[Checkpoint]:
        """Checkpoints of fenced attempts that were not there yet when a later attempt began."""
        late: set[Checkpoint] = set()
        for attempt in self.fenced:
            followed = min((start for number, start in starts.items() if number > attempt), default=None)
            if followed is not None:
                early = {checkpoint for seen, found in self.looks if seen < followed for checkpoint in found}
                ever = {checkpoint for _, found in self.looks for checkpoint in found if checkpoint[0] == attempt}
                late |= ever - early
        return late

    def _wrong(self, what: str) -> None:
        if what not in self.violations:
            self.violations.append(what)


def newness(checkpoint: Checkpoint) -> tuple[int, int]:
    """Runs resume from the highest: the most steps, then the later attempt."""
    return checkpoint[1], checkpoint[0]


def name(checkpoint: Checkpoint) -> str:
    """A checkpoint for people."""
    return f"attempt-{checkpoint[0]:04d}/step-{checkpoint[1]:08d}"
