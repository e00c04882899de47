"""The attempt that is under way: what it waits for or does, and what its end means for the run."""

from dataclasses import replace

from lmft_api.reasons import Phase, Reason
from lmft_api.result import shorten
from lmft_api.run import Stage, spec_hash
from lmft_api.settings import resolve
from lmft_api.status import Attempt, Condition, Provenance
from lmft_operator import admission, alterations, manifests, status, verdict, waiting
from lmft_operator.admission import CANNOT_CREATE_POD
from lmft_operator.course import ADJUSTED, Course, Notice, deadline, grace, since, time_is_up, time_left
from lmft_operator.facts import JobFacts, PodFacts
from lmft_operator.screening import grounds, screened
from lmft_operator.verdict import Kind, Verdict

MAX_ADOPTED = 9_999
"""Highest number of an attempt that a Job's label alone may say: somebody may have written any."""
REFUSED_SECONDS = 30.0
"""How long the Job of a first attempt is kept whose pod is refused."""


def adopt(course: Course, after: int) -> Attempt | None:
    """The next attempt whose Job exists though the status does not list it: created just before a crash, or a burst."""
    found = (job for job in course.seen.jobs if after < job.attempt <= MAX_ADOPTED)
    jobs = [job for job in found if not outdated(course, job)]
    if not jobs:
        return None
    job = min(jobs, key=lambda job: job.attempt)
    attempt = Attempt(number=job.attempt, job=job.name, stage=job.stage.value)
    course.status = status.with_attempt(course.status, attempt)
    settle_provenance(course, job)
    return attempt


def outdated(course: Course, job: JobFacts) -> bool:
    """Whether a Job was made from a manifest that changed before the status could list it, and thereby settle it.

    Until then the API server takes every edit, and the Job has what was there before.
    """
    return not course.status.attempts and bool(job.spec_hash) and job.spec_hash != spec_hash(course.spec)


def clear_outdated(course: Course) -> bool:
    """Delete Jobs of an earlier manifest; returns whether they or their pods are still in the way of the next one."""
    seen, margin = course.seen, course.settings.retries.pod_end_margin_seconds
    jobs = [job for job in seen.jobs if outdated(course, job)]
    for job in jobs:
        _stop(course, job)
    uids = {job.uid for job in jobs}
    pods = [pod for pod in seen.pods if pod.owner in uids and not pod.over]
    ends = [margin if pod.deleted is None else pod.deleted + margin - seen.now for pod in pods]
    left = max(ends, default=0.0)
    if left > 0 or course.delete:
        course.look(max(left, 1.0))
        course.wait(Reason.PENDING, "The manifest changed while its Job was being made; another is made of it.")
        return True
    return False


def settle_provenance(course: Course, job: JobFacts | None = None) -> None:
    """What is settled with the first attempt: provenance, of a Job that exists by what its pods are given."""
    if course.status.provenance is not None:
        return
    provenance = Provenance(
        image=shorten((job.image if job else "") or manifests.image_of(course.spec, course.settings), 253),
        spec_hash=(job.spec_hash if job else "") or spec_hash(course.spec),
        seed=resolve(course.spec).training.seed,
    )
    course.status = status.change(course.status, {"provenance": provenance})


def follow(course: Course, attempt: Attempt) -> Attempt:
    """Look after the open attempt; returns it, closed when it has ended."""
    seen = course.seen
    job = next((job for job in seen.jobs if job.attempt == attempt.number), None)
    pod = _pod_of(course, job, attempt)
    outcome = verdict.judge(job, pod, seen.now, begun=attempt.start_time is not None)
    if outcome.kind == Kind.OPEN:
        outcome = _overdue(course, attempt, job, pod)
    if outcome.kind != Kind.OPEN:
        return _close(course, attempt, outcome, job, pod)
    if pod is not None and pod.started is not None and attempt.start_time is None:
        started = status.timestamp(pod.started)
        attempt = status.change(attempt, {"start_time": started})
        course.status = status.with_attempt(course.status, attempt)
        if course.status.start_time is None:
            course.status = status.change(course.status, {"start_time": started})
    if course.spec.suspend:
        _stop(course, job)
        course.wait(Reason.SUSPENDED, _stopping(pod), Phase.SUSPENDED)
        return attempt
    left, phase = time_left(course, pod), course.status.phase or Phase.TRAINING
    if left is not None and left <= 0:
        _stop(course, job)
        words = f"{time_is_up(course)} {_stopping(pod)}"
        course.wait(Reason.DEADLINE_EXCEEDED, words, phase)
        return attempt
    if job is not None and job.suspended and attempt.start_time is not None:
        # Admitted once more, the Job would make a second pod, in the folder of the first. An attempt has one pod.
        _stop(course, job)
        words = "The queue has taken the place away: the pod saves a checkpoint and ends, and the run queues anew."
        course.wait(Reason.INTERRUPTED, words, phase)
        return attempt
    if job is not None and pod is None and _withdrawn(course, attempt, job):
        return attempt
    course.look(left)
    _describe(course, attempt, job, pod)
    return attempt


def _withdrawn(course: Course, attempt: Attempt, job: JobFacts) -> bool:
    """Whether the first attempt counts as not made, because its pod is refused: then the manifest may still change.

    The Job stays for a while, for its controller tries again by itself; then, or once the manifest is another, it is
    deleted and a new one made, whose pod is tried at once.
    """
    words = waiting.no_pod(job, course.seen.warnings)
    first = [a.number for a in course.status.attempts or ()] == [attempt.number]
    if (
        not words
        or not first
        or attempt.start_time is not None
        or job.failed_pods
        or not admission.refusal(words).changeable
    ):
        return False
    told = status.parse(course.seen.run.status).observed_generation
    course.status = status.change(course.status, {"attempts": None, "provenance": None})
    course.wait(*admission.told(CANNOT_CREATE_POD, words))
    left = job.created + REFUSED_SECONDS - course.seen.now
    if left <= 0 or told not in (None, course.seen.run.generation):
        _stop(course, job)
    course.look(left)
    return True


def _overdue(course: Course, attempt: Attempt, job: JobFacts | None, pod: PodFacts | None) -> Verdict:
    """Patience with an open attempt whose end is due; what is fenced in its own folder need not be waited for."""
    now, margin = course.seen.now, course.settings.retries.pod_end_margin_seconds
    due: float | None = None
    words = ""
    if pod is not None and not pod.ended:
        where = f"its node {pod.node} may be gone" if pod.node else "it never had a node"
        words = f"Pod {pod.name} did not end within its grace period; {where}."
        left = time_left(course, pod)
        if pod.deleted is not None:
            due = pod.deleted + margin
        elif left is not None and left <= 0 and job is None:
            due = now + left + grace(course) + margin  # nobody ends a pod that was taken from its Job
    else:
        silent = verdict.silent_since(job, pod, begun=attempt.start_time is not None)
        due = None if silent is None else silent + margin
        words = "The pod is gone and left no word, and its Job has not said how it ended."
    if due is None or due > now:
        course.look(None if due is None else due - now)
        return verdict.OPEN
    return Verdict(Kind.INTERRUPTED, Reason.INTERRUPTED, words, None, pod.started if pod else None, now)


def _describe(course: Course, attempt: Attempt, job: JobFacts | None, pod: PodFacts | None) -> None:
    """Phase, reason and message of a run whose attempt is under way."""
    queued = job is not None and job.suspended
    stopping = pod is not None and pod.deleted is not None
    if verdict.silent_since(job, pod, begun=attempt.start_time is not None) is not None:
        words = "The pod is gone; its Job has yet to say how it ended."
        course.wait(Reason.INTERRUPTED, words, course.status.phase or Phase.PENDING)
    elif pod is None or pod.started is None or queued:
        rules = course.settings.policy.for_namespace(course.seen.run.key.namespace)
        wishes = manifests.wishes(course.spec, course.settings, rules, job.gpus if job else 0)
        said = _said_before(course, attempt)
        wait = waiting.explain(job, pod, course.seen.warnings, wishes, attempt.number, said)
        course.wait(wait.reason, wait.message)
    elif pod.orphaned and not stopping:
        course.wait(Reason.TRAINING, f"Attempt {attempt.number} runs on. {_stopping(pod)}", Phase.TRAINING)
    elif stopping or job is None:
        course.wait(Reason.INTERRUPTED, "The pod is being stopped; the next attempt follows.", Phase.TRAINING)
    elif attempt.stage == Stage.PREPARE:
        course.wait(
            Reason.PREPARING,
            "Checking model, data set and storage on a CPU before asking for a GPU.",
            Phase.PREPARING,
        )
    else:
        course.wait(Reason.TRAINING, f"Attempt {attempt.number} runs on {pod.node or 'a node'}.", Phase.TRAINING)


def _stopping(pod: PodFacts | None) -> str:
    """What becomes of a pod that is to be stopped."""
    if pod is None or not pod.orphaned or pod.deleted is not None:
        return "Stopping: the pod saves a checkpoint and ends."
    return f"Its Job was deleted without its pod; kubectl delete pod {pod.name} is what stops it."


def _said_before(course: Course, attempt: Attempt) -> Condition | None:
    """What the status as it stands says of an attempt that is under way."""
    before = status.parse(course.seen.run.status)
    newest = next(reversed(before.attempts or []), None)
    return before.succeeded if newest is not None and newest.number == attempt.number else None


def release(course: Course) -> None:
    """Delete the Jobs of pods that other containers keep up though ours has ended: they hold GPUs that nothing uses."""
    seen, margin = course.seen, course.settings.retries.pod_end_margin_seconds
    ends = {attempt.number: since(attempt.end_time) for attempt in course.status.attempts or ()}
    for pod in seen.pods:
        job = next((job for job in seen.jobs if job.uid == pod.owner), None)
        # A pod without others ends by itself, however late a busy kubelet says so.
        if job is None or not pod.ended or pod.over or not pod.beside or pod.deleted is not None:
            continue
        left = (pod.finished or ends.get(pod.attempt) or seen.now) + margin - seen.now
        if left <= 0:
            _stop(course, job)
        course.look(left)


def _stop(course: Course, job: JobFacts | None) -> None:
    if job is not None and not job.deleting and job.name not in course.delete:
        course.delete.append(job.name)


def _close(course: Course, attempt: Attempt, outcome: Verdict, job: JobFacts | None, pod: PodFacts | None) -> Attempt:
    """Write down how an attempt ended, and end the run where that settles it."""
    run = course.seen.run
    outcome = screened(outcome, grounds(run.key, manifests.folder_of(run, course.spec), course.spec, course.settings))
    if outcome.started is None and attempt.start_time is not None:
        outcome = replace(outcome, started=since(attempt.start_time))
    earlier = {change for a in course.status.attempts or () for change in a.adjustments or ()}
    preparing = attempt.stage == Stage.PREPARE
    complete = outcome.kind == Kind.DONE and not preparing
    if outcome.result is not None:
        course.status = status.with_result(course.status, outcome.result, complete=complete)
    gpus = job.gpus if job is not None else _gpus_of(course, attempt)
    course.status = status.without_eta(status.with_usage(course.status, outcome, gpus))
    # What is left of the attempt must not go on beside the next one; a pod that has ended keeps its log.
    left = pod is None or pod.gone or not pod.ended or manifests.queued(course.spec, course.settings)
    left = left or (job is not None and job.repeats and outcome.exit_code is None)
    if job is not None and not job.finished and (job.suspended or (left and outcome.kind == Kind.INTERRUPTED)):
        _stop(course, job)
    if job is not None and job.altered and outcome.kind in (Kind.INTERRUPTED, Kind.RETRY, Kind.UNREAD):
        outcome = replace(outcome, message=f"{outcome.message} {alterations.told(job.altered)}".strip())
    if outcome.kind == Kind.INTERRUPTED:
        if course.spec.suspend:
            outcome = replace(outcome, reason=Reason.SUSPENDED, message="Stopped by spec.suspend.")
        elif _out_of_time(course):
            words = time_is_up(course)
            outcome = replace(outcome, kind=Kind.FINAL, reason=Reason.DEADLINE_EXCEEDED, message=words)
    attempt = status.closed(attempt, outcome, course.status)
    course.status = status.with_attempt(course.status, attempt)
    if course.status.start_time is None and attempt.start_time is not None:
        course.status = status.change(course.status, {"start_time": attempt.start_time})
    if outcome.reason == Reason.INTERRUPTED:
        course.status = status.change(course.status, {"interruptions": (course.status.interruptions or 0) + 1})
    if outcome.kind == Kind.RETRY:
        course.status = status.change(course.status, {"failures": (course.status.failures or 0) + 1})
    course.closed += _notices(attempt, outcome, earlier)
    if outcome.reason == Reason.DEADLINE_EXCEEDED:
        course.give_up(outcome.reason, outcome.message)
    elif complete or outcome.kind == Kind.FINAL:
        course.end(outcome.reason, outcome.message)
    return attempt


def _out_of_time(course: Course) -> bool:
    """Whether an attempt that was interrupted has been stopped at the deadline, or has reached it."""
    left, seen = time_left(course), course.status.succeeded
    # The clock of its node may tell another running time than ours, by which it was stopped.
    stopped = seen is not None and seen.reason == Reason.DEADLINE_EXCEEDED and deadline(course)[0] is not None
    current = seen is not None and seen.observed_generation == course.seen.run.generation
    return (left is not None and left <= 0) or (stopped and current)


def _notices(attempt: Attempt, outcome: Verdict, earlier: set[str]) -> list[Notice]:
    """What is worth an Event about the end of an attempt; adjustments of earlier attempts have had theirs."""
    found = []
    if new := [change for change in attempt.adjustments or () if change not in earlier]:
        words = f"Attempt {attempt.number} went on with a smaller batch: {'; '.join(new)}. The effective batch stays."
        found.append(Notice(True, ADJUSTED, words))
    if outcome.kind in (Kind.INTERRUPTED, Kind.RETRY, Kind.UNREAD):
        words = f"Attempt {attempt.number}: {outcome.message}"
        found.append(Notice(outcome.reason != Reason.SUSPENDED, outcome.reason.value, words))
    return found


def _pod_of(course: Course, job: JobFacts | None, attempt: Attempt) -> PodFacts | None:
    """The pod of an attempt: the first that began, before that the newest; one that exists before one that is gone.

    Labels alone do not make a pod the attempt's: whoever may create pods may label them. A pod that ended before it
    began and before its Job was started anew was stopped by the queue, and the Job makes another one. A second pod that
    begins, when a queue takes the place away and gives it back at once, is no part of the attempt.
    """
    seen = course.seen.pods
    pods = [pod for pod in seen if pod.attempt == attempt.number and (job is None or pod.owner in ("", job.uid))]
    begun = [pod for pod in pods if pod.started is not None]
    if attempt.start_time is not None and manifests.queued(course.spec, course.settings):
        later = {p.uid for p in begun if not p.ended and status.timestamp(p.started or 0.0) != attempt.start_time}
        pods, begun = ([pod for pod in some if pod.uid not in later] for some in (pods, begun))
    if begun:
        return min(begun, key=lambda pod: pod.started or 0.0)
    if job is not None and job.started is not None:
        pods = [pod for pod in pods if not pod.ended or pod.created >= job.started]
    return max(pods, key=lambda pod: (not pod.gone, pod.created), default=None)


def _gpus_of(course: Course, attempt: Attempt) -> int:
    gpus = (course.spec.resources.gpus_per_node if course.spec.resources else None) or 0
    return 0 if attempt.stage == Stage.PREPARE else gpus
