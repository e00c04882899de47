"""The open attempt: what it waits for or does, and what its end means for the run."""

from dataclasses import replace

from lmft_api.reasons import Phase, Reason
from lmft_api.spec.resolved import resolve
from lmft_api.status import Attempt, Condition, LMFineTuneStatus, Provenance
from lmft_api.text.times import timestamp
from lmft_api.text.wording import shorten
from lmft_api.wire.run_file import Stage, spec_hash
from lmft_operator.decide import admission, judge, waiting
from lmft_operator.decide.admission import CANNOT_CREATE_POD
from lmft_operator.decide.draft import (
    ADJUSTED,
    DecisionDraft,
    Notice,
    deadline,
    grace,
    newest_attempt,
    since,
    time_is_up,
    time_left,
)
from lmft_operator.decide.screening import acceptance_rules, screened
from lmft_operator.domain import alterations
from lmft_operator.domain.facts import JobFacts, PodFacts
from lmft_operator.domain.verdict import OPEN, Kind, Verdict
from lmft_operator.jobs import manifest
from lmft_operator.status import edit
from lmft_operator.status.change import change

MAX_ADOPTED = 9_999
"""Highest attempt number that is accepted from a Job's label alone: anybody may have written the label."""
REFUSED_SECONDS = 30.0
"""Seconds for which the Job of a first attempt is kept while its pod is refused."""


def adopt(draft: DecisionDraft, after: int) -> Attempt | None:
    """The next attempt whose Job exists though the status does not list it, as after a crash or in a burst."""
    found = (job for job in draft.seen.jobs if after < job.attempt <= MAX_ADOPTED)
    jobs = [job for job in found if not outdated(draft, job)]
    if not jobs:
        return None
    job = min(jobs, key=lambda job: job.attempt)
    prepares = job.spec_hash if job.stage == Stage.PREPARE else None
    attempt = Attempt(number=job.attempt, job=job.name, stage=job.stage.value, spec_hash=prepares or None)
    draft.status = edit.with_attempt(draft.status, attempt)
    settle_provenance(draft, job)
    return attempt


def outdated(draft: DecisionDraft, job: JobFacts) -> bool:
    """Whether a Job was made from a manifest that was edited before the status listed the Job.

    The spec is immutable only once the status lists an attempt that trains; until then edits are accepted and the Job
    may be stale.
    """
    if not only_prepared(draft.status) or job.attempt in {a.number for a in draft.status.attempts or ()}:
        return False
    return bool(job.spec_hash) and job.spec_hash != spec_hash(draft.spec)


def only_prepared(status: LMFineTuneStatus) -> bool:
    """Whether no attempt has trained yet, so that the manifest may still change."""
    return all(attempt.stage == Stage.PREPARE for attempt in status.attempts or ())


def superseded(draft: DecisionDraft) -> bool:
    """Whether the newest preparation is of a manifest that has changed since, before any attempt has trained."""
    newest = newest_attempt(draft)
    prepares = newest.spec_hash if newest is not None else None
    return only_prepared(draft.status) and prepares is not None and prepares != spec_hash(draft.spec)


def clear_outdated(draft: DecisionDraft) -> bool:
    """Delete Jobs of an earlier manifest; returns whether they or their pods still block the next one."""
    seen, margin = draft.seen, draft.settings.retries.pod_end_margin_seconds
    jobs = [job for job in seen.jobs if outdated(draft, job)]
    for job in jobs:
        _stop(draft, job)
    uids = {job.uid for job in jobs}
    pods = [pod for pod in seen.pods if pod.owner in uids and not pod.over]
    ends = [margin if pod.deleted is None else pod.deleted + margin - seen.now for pod in pods]
    left = max(ends, default=0.0)
    if left > 0 or draft.delete:
        draft.look(max(left, 1.0))
        draft.wait(Reason.PENDING, "The manifest changed while its Job was being created; the Job is created again.")
        return True
    return False


def settle_provenance(draft: DecisionDraft, job: JobFacts | None = None) -> None:
    """Set what the first attempt that trains fixes for good; until then, what the newest preparation is made from.

    If the Job exists, from what its pods are given.
    """
    known = draft.status.provenance
    earlier = (draft.status.attempts or [])[:-1]
    if known is not None and any(attempt.stage != Stage.PREPARE for attempt in earlier):
        return
    provenance = change(
        known or Provenance(),
        image=shorten((job.image if job else "") or manifest.image_of(draft.spec, draft.settings), 253),
        spec_hash=(job.spec_hash if job else "") or spec_hash(draft.spec),
        seed=resolve(draft.spec).training.seed,
    )
    draft.status = change(draft.status, provenance=provenance)


def follow(draft: DecisionDraft, attempt: Attempt) -> Attempt:
    """Update the open attempt; returns it, closed when it has ended."""
    seen = draft.seen
    job = next((job for job in seen.jobs if job.attempt == attempt.number), None)
    pod = _pod_of(draft, job, attempt)
    outcome = judge.judge(job, pod, seen.now, begun=attempt.start_time is not None)
    if outcome.kind == Kind.OPEN:
        outcome = _overdue(draft, attempt, job, pod)
    if outcome.kind != Kind.OPEN:
        return _close(draft, attempt, outcome, job, pod)
    if pod is not None and pod.started is not None and attempt.start_time is None:
        started = timestamp(pod.started)
        attempt = change(attempt, start_time=started)
        draft.status = edit.with_attempt(draft.status, attempt)
        if draft.status.start_time is None:
            draft.status = change(draft.status, start_time=started)
    if draft.spec.suspend:
        _stop(draft, job)
        draft.wait(Reason.SUSPENDED, _stopping(pod), Phase.SUSPENDED)
        return attempt
    left, phase = time_left(draft, pod), draft.status.phase or Phase.TRAINING
    if left is not None and left <= 0:
        _stop(draft, job)
        words = f"{time_is_up(draft)} {_stopping(pod)}"
        draft.wait(Reason.DEADLINE_EXCEEDED, words, phase)
        return attempt
    if job is not None and job.suspended and attempt.start_time is not None:
        # If the queue admitted the Job again it would make a second pod in the first one's folder; one pod an attempt.
        _stop(draft, job)
        words = "The queue has preempted the run: the pod saves a checkpoint and ends, and the run is queued again."
        draft.wait(Reason.INTERRUPTED, words, phase)
        return attempt
    if superseded(draft):
        _stop(draft, job)
        draft.wait(Reason.PREPARING, "The manifest has changed, and is prepared again.", Phase.PREPARING)
        return attempt
    if job is not None and pod is None and _withdrawn(draft, attempt, job):
        return attempt
    draft.look(left)
    _describe(draft, attempt, job, pod)
    return attempt


def _withdrawn(draft: DecisionDraft, attempt: Attempt, job: JobFacts) -> bool:
    """Whether the first attempt counts as not made because its pod is refused, so that the manifest may still change.

    The Job is kept for a while, since its controller retries by itself. After that, or once the manifest has
    changed, it is deleted and a new one is created, whose pod is tried at once.
    """
    words = waiting.no_pod(job, draft.seen.warnings)
    first = [a.number for a in draft.status.attempts or ()] == [attempt.number]
    if (
        not words
        or not first
        or attempt.start_time is not None
        or job.failed_pods
        or not admission.refusal(words).changeable
    ):
        return False
    observed = draft.seen.status.observed_generation
    draft.status = change(draft.status, attempts=None, provenance=None)
    draft.wait(*admission.explained(CANNOT_CREATE_POD, words))
    left = job.created + REFUSED_SECONDS - draft.seen.now
    if left <= 0 or observed not in (None, draft.seen.run.generation):
        _stop(draft, job)
    draft.look(left)
    return True


def _overdue(draft: DecisionDraft, attempt: Attempt, job: JobFacts | None, pod: PodFacts | None) -> Verdict:
    """Verdict on an open attempt whose end is overdue; it writes only to its own folder, so nothing waits for it."""
    now, margin = draft.seen.now, draft.settings.retries.pod_end_margin_seconds
    due: float | None = None
    words = ""
    if pod is not None and not pod.ended:
        where = f"its node {pod.node} may be gone" if pod.node else "it never had a node"
        words = f"Pod {pod.name} did not end within its grace period; {where}."
        left = time_left(draft, pod)
        if pod.deleted is not None:
            due = pod.deleted + margin
        elif left is not None and left <= 0 and job is None:
            due = now + left + grace(draft) + margin  # nobody stops a pod that was orphaned from its Job
    else:
        silent = judge.silent_since(job, pod, begun=attempt.start_time is not None)
        due = None if silent is None else silent + margin
        words = "The pod is gone and left no result, and its Job has not reported how it ended."
    if due is None or due > now:
        draft.look(None if due is None else due - now)
        return OPEN
    return Verdict(Kind.INTERRUPTED, Reason.INTERRUPTED, words, started=pod.started if pod else None, ended=now)


def _describe(draft: DecisionDraft, attempt: Attempt, job: JobFacts | None, pod: PodFacts | None) -> None:
    """Set phase, reason and message of a run whose attempt is open."""
    queued = job is not None and job.suspended
    stopping = pod is not None and pod.deleted is not None
    if judge.silent_since(job, pod, begun=attempt.start_time is not None) is not None:
        words = "The pod is gone; waiting for its Job to report how it ended."
        draft.wait(Reason.INTERRUPTED, words, draft.status.phase or Phase.PENDING)
    elif pod is None or pod.started is None or queued:
        rules = draft.settings.policy.for_namespace(draft.seen.run.key.namespace)
        requirements = manifest.requirements(draft.spec, draft.settings, rules, job.gpus if job else 0)
        said = _said_before(draft, attempt)
        wait = waiting.explain(job, pod, draft.seen.warnings, requirements, attempt.number, said)
        draft.wait(wait.reason, wait.message)
    elif pod.orphaned and not stopping:
        draft.wait(Reason.TRAINING, f"Attempt {attempt.number} runs on. {_stopping(pod)}", Phase.TRAINING)
    elif stopping or job is None:
        draft.wait(Reason.INTERRUPTED, "The pod is being stopped; the next attempt follows.", Phase.TRAINING)
    elif attempt.stage == Stage.PREPARE:
        draft.wait(
            Reason.PREPARING,
            "Checking model, data set and storage on a CPU before asking for a GPU.",
            Phase.PREPARING,
        )
    else:
        draft.wait(Reason.TRAINING, f"Attempt {attempt.number} runs on {pod.node or 'a node'}.", Phase.TRAINING)


def _stopping(pod: PodFacts | None) -> str:
    """What happens to a pod that is to be stopped."""
    if pod is None or not pod.orphaned or pod.deleted is not None:
        return "Stopping: the pod saves a checkpoint and ends."
    return f"Its Job was deleted without its pod; kubectl delete pod {pod.name} stops it."


def _said_before(draft: DecisionDraft, attempt: Attempt) -> Condition | None:
    """The condition in the current status, if it describes this open attempt."""
    before = draft.seen.status
    newest = next(reversed(before.attempts or []), None)
    return before.succeeded if newest is not None and newest.number == attempt.number else None


def release(draft: DecisionDraft) -> None:
    """Delete the Jobs of pods that other containers keep running though ours has ended: they hold unused GPUs."""
    seen, margin = draft.seen, draft.settings.retries.pod_end_margin_seconds
    ends = {attempt.number: since(attempt.end_time) for attempt in draft.status.attempts or ()}
    for pod in seen.pods:
        job = next((job for job in seen.jobs if job.uid == pod.owner), None)
        # A pod without other containers ends by itself, however late a busy kubelet reports it.
        if job is None or not pod.ended or pod.over or not pod.running_others or pod.deleted is not None:
            continue
        left = (pod.finished or ends.get(pod.attempt) or seen.now) + margin - seen.now
        if left <= 0:
            _stop(draft, job)
        draft.look(left)


def _stop(draft: DecisionDraft, job: JobFacts | None) -> None:
    if job is not None and not job.deleting and job.name not in draft.delete:
        draft.delete.append(job.name)


def _close(
    draft: DecisionDraft, attempt: Attempt, outcome: Verdict, job: JobFacts | None, pod: PodFacts | None
) -> Attempt:
    """Record how an attempt ended, and end the run where that decides it."""
    run = draft.seen.run
    outcome = screened(
        outcome, acceptance_rules(run.key, manifest.folder_of(run, draft.spec), draft.spec, draft.settings)
    )
    if outcome.started is None and attempt.start_time is not None:
        outcome = replace(outcome, started=since(attempt.start_time))
    earlier = {change for a in draft.status.attempts or () for change in a.adjustments or ()}
    preparing = attempt.stage == Stage.PREPARE
    complete = outcome.kind == Kind.DONE and not preparing
    if outcome.result is not None:
        draft.status = edit.with_result(draft.status, outcome.result, complete=complete)
    gpus = job.gpus if job is not None else _gpus_of(draft, attempt)
    draft.status = edit.without_eta(edit.with_usage(draft.status, outcome, gpus))
    # Whatever is left of the attempt must not run beside the next one; a pod that has ended keeps its log.
    left = pod is None or pod.gone or not pod.ended or manifest.queued(draft.spec, draft.settings)
    left = left or (job is not None and job.repeats and outcome.exit_code is None)
    if job is not None and not job.finished and (job.suspended or (left and outcome.kind == Kind.INTERRUPTED)):
        _stop(draft, job)
    if job is not None and job.altered and outcome.kind in (Kind.INTERRUPTED, Kind.RETRY, Kind.UNREAD):
        outcome = replace(outcome, message=f"{outcome.message} {alterations.explained(job.altered)}".strip())
    if outcome.kind == Kind.INTERRUPTED:
        if draft.spec.suspend:
            outcome = replace(outcome, reason=Reason.SUSPENDED, message="Stopped by spec.suspend.")
        elif _out_of_time(draft):
            words = time_is_up(draft)
            outcome = replace(outcome, kind=Kind.FINAL, reason=Reason.DEADLINE_EXCEEDED, message=words)
        elif superseded(draft):
            outcome = replace(outcome, message="The manifest has changed, and is prepared again.")
    of_another = preparing and superseded(draft)
    attempt = edit.closed(attempt, outcome, draft.status)
    draft.status = edit.with_attempt(draft.status, attempt)
    if draft.status.start_time is None and attempt.start_time is not None:
        draft.status = change(draft.status, start_time=attempt.start_time)
    if outcome.reason == Reason.INTERRUPTED:
        draft.status = change(draft.status, interruptions=(draft.status.interruptions or 0) + 1)
    if outcome.kind == Kind.RETRY and not of_another:
        draft.status = change(draft.status, failures=(draft.status.failures or 0) + 1)
    draft.closed += _notices(attempt, outcome, earlier)
    if outcome.reason == Reason.DEADLINE_EXCEEDED:
        draft.give_up(outcome.reason, outcome.message)
    elif complete or (outcome.kind == Kind.FINAL and not of_another):
        draft.end(outcome.reason, outcome.message)
    return attempt


def _out_of_time(draft: DecisionDraft) -> bool:
    """Whether an interrupted attempt was stopped at the deadline, or has reached it."""
    left, seen = time_left(draft), draft.status.succeeded
    # The node's clock may give another running time than ours, which was used to stop it.
    stopped = seen is not None and seen.reason == Reason.DEADLINE_EXCEEDED and deadline(draft)[0] is not None
    current = seen is not None and seen.observed_generation == draft.seen.run.generation
    return (left is not None and left <= 0) or (stopped and current)


def _notices(attempt: Attempt, outcome: Verdict, earlier: set[str]) -> list[Notice]:
    """Events about the end of an attempt; adjustments of earlier attempts have already been reported."""
    found = []
    if new := [change for change in attempt.adjustments or () if change not in earlier]:
        words = (
            f"Attempt {attempt.number} continued with a smaller batch: {'; '.join(new)}. The effective batch size "
            "is unchanged."
        )
        found.append(Notice(True, ADJUSTED, words))
    if outcome.kind in (Kind.INTERRUPTED, Kind.RETRY, Kind.UNREAD):
        words = f"Attempt {attempt.number}: {outcome.message}"
        found.append(Notice(outcome.reason != Reason.SUSPENDED, outcome.reason.value, words))
    return found


def _pod_of(draft: DecisionDraft, job: JobFacts | None, attempt: Attempt) -> PodFacts | None:
    """The pod of an attempt: the first that began, else the newest; existing pods before deleted ones.

    A label alone does not prove that a pod belongs to the attempt: whoever may create pods may label them. A pod that
    ended before it began and before its Job was started again was stopped by the queue, and the Job makes another one.
    A second pod that begins, when a queue preempts and readmits the Job at once, does not belong to the attempt.
    """
    seen = draft.seen.pods
    pods = [pod for pod in seen if pod.attempt == attempt.number and (job is None or pod.owner in ("", job.uid))]
    begun = [pod for pod in pods if pod.started is not None]
    if attempt.start_time is not None and manifest.queued(draft.spec, draft.settings):
        later = {p.uid for p in begun if not p.ended and timestamp(p.started or 0.0) != attempt.start_time}
        pods, begun = ([pod for pod in some if pod.uid not in later] for some in (pods, begun))
    if begun:
        return min(begun, key=lambda pod: pod.started or 0.0)
    if job is not None and job.started is not None:
        pods = [pod for pod in pods if not pod.ended or pod.created >= job.started]
    return max(pods, key=lambda pod: (not pod.gone, pod.created), default=None)


def _gpus_of(draft: DecisionDraft, attempt: Attempt) -> int:
    gpus = (draft.spec.resources.gpus_per_node if draft.spec.resources else None) or 0
    return 0 if attempt.stage == Stage.PREPARE else gpus
