"""The attempt that is under way: what it waits for or does, and what its end means for the run."""

from dataclasses import replace

from lmft_api.reasons import Phase, Reason
from lmft_api.run import Stage, spec_hash
from lmft_api.settings import resolve
from lmft_api.status import Attempt, Provenance
from lmft_operator import manifests, status, verdict, waiting
from lmft_operator.course import ADJUSTED, Course, Notice, deadline, time_left
from lmft_operator.facts import JobFacts, Observed, PodFacts
from lmft_operator.verdict import Kind, Verdict


def adopt(course: Course, after: int) -> Attempt | None:
    """The next attempt whose Job exists though the status does not list it: created just before a crash, or a burst."""
    jobs = [job for job in course.seen.jobs if job.attempt > after]
    if not jobs:
        return None
    job = min(jobs, key=lambda job: job.attempt)
    attempt = Attempt(number=job.attempt, job=job.name, stage=job.stage.value)
    course.status = status.with_attempt(course.status, attempt)
    settle_provenance(course)
    return attempt


def settle_provenance(course: Course) -> None:
    """What is settled with the first attempt: provenance."""
    if course.status.provenance is not None:
        return
    provenance = Provenance(
        image=status.cut(manifests.image_of(course.spec, course.settings), 253),
        spec_hash=spec_hash(course.spec),
        seed=resolve(course.spec).training.seed,
    )
    course.status = status.change(course.status, {"provenance": provenance})


def follow(course: Course, attempt: Attempt) -> Attempt:
    """Look after the open attempt; returns it, closed when it has ended."""
    seen = course.seen
    job = next((job for job in seen.jobs if job.attempt == attempt.number), None)
    pod = _pod_of(seen, job, attempt.number)
    outcome = verdict.judge(job, pod, seen.now)
    if outcome.kind == Kind.OPEN and pod is not None and pod.deleted is not None and not pod.ended:
        # A vanished node leaves its pods in Terminating; what is fenced in its own folder need not be waited for.
        patience = pod.deleted + course.settings.retries.pod_end_margin_seconds - seen.now
        course.look(patience if patience > 0 else None)
        if patience <= 0:
            where = f"its node {pod.node} may be gone" if pod.node else "it never had a node"
            words = f"Pod {pod.name} did not end within its grace period; {where}."
            outcome = Verdict(Kind.INTERRUPTED, Reason.INTERRUPTED, words, None, pod.started, seen.now)
    if outcome.kind != Kind.OPEN:
        return _close(course, attempt, outcome, job)
    if pod is not None and pod.started is not None and attempt.start_time is None:
        started = status.timestamp(pod.started)
        attempt = status.change(attempt, {"start_time": started})
        course.status = status.with_attempt(course.status, attempt)
        if course.status.start_time is None:
            course.status = status.change(course.status, {"start_time": started})
    if course.spec.suspend:
        _stop(course, job)
        course.wait(Reason.SUSPENDED, "Stopping: the pod saves a checkpoint and ends.", Phase.SUSPENDED)
        return attempt
    left = time_left(course, pod)
    if left is not None and left <= 0:
        _stop(course, job)
        words = f"The run has used its {deadline(course)} seconds (spec.activeDeadlineSeconds)."
        end = Verdict(Kind.FINAL, Reason.DEADLINE_EXCEEDED, words, None, pod.started if pod else None, seen.now)
        return _close(course, attempt, end, job)
    course.look(left)
    _describe(course, attempt, job, pod)
    return attempt


def _describe(course: Course, attempt: Attempt, job: JobFacts | None, pod: PodFacts | None) -> None:
    """Phase, reason and message of a run whose attempt is under way."""
    queued = job is not None and job.suspended
    stopping = pod is not None and pod.deleted is not None
    if pod is None or pod.started is None or queued:
        wishes = manifests.wishes(course.spec, course.settings, job.gpus if job else 0)
        wait = waiting.explain(job, pod, course.seen.warnings, wishes, course.seen.now, attempt.number)
        course.look(wait.seconds)
        course.wait(wait.reason, wait.message)
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


def _stop(course: Course, job: JobFacts | None) -> None:
    if job is not None and not job.deleting:
        course.delete.append(job.name)


def _close(course: Course, attempt: Attempt, outcome: Verdict, job: JobFacts | None) -> Attempt:
    """Write down how an attempt ended, and end the run where that settles it."""
    if course.spec.suspend and outcome.kind == Kind.INTERRUPTED:
        outcome = replace(outcome, reason=Reason.SUSPENDED, message="Stopped by spec.suspend.")
    earlier = {change for a in course.status.attempts or () for change in a.adjustments or ()}
    preparing = attempt.stage == Stage.PREPARE
    complete = outcome.kind == Kind.DONE and not preparing
    if outcome.result is not None:
        course.status = status.with_result(course.status, outcome.result, complete=complete)
    gpus = job.gpus if job is not None else _gpus_of(course, attempt)
    course.status = status.with_usage(course.status, outcome, gpus)
    attempt = status.closed(attempt, outcome, course.status)
    course.status = status.with_attempt(course.status, attempt)
    if course.status.start_time is None and attempt.start_time is not None:
        course.status = status.change(course.status, {"start_time": attempt.start_time})
    if outcome.reason == Reason.INTERRUPTED:
        course.status = status.change(course.status, {"interruptions": (course.status.interruptions or 0) + 1})
    if outcome.kind == Kind.RETRY:
        course.status = status.change(course.status, {"failures": (course.status.failures or 0) + 1})
    course.closed += _notices(attempt, outcome, earlier)
    if complete or outcome.kind == Kind.FINAL:
        course.end(outcome.reason, outcome.message)
    return attempt


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


def _pod_of(seen: Observed, job: JobFacts | None, number: int) -> PodFacts | None:
    """The newest pod of an attempt; one that exists before one that is gone.

    Labels alone do not make a pod the attempt's: whoever may create pods may label them. A pod that ended before its
    Job was started anew was stopped by the queue, and the Job makes another one.
    """
    pods = [pod for pod in seen.pods if pod.attempt == number and (job is None or pod.owner in ("", job.uid))]
    if job is not None and job.started is not None:
        pods = [pod for pod in pods if not pod.ended or pod.created >= job.started]
    return max(pods, key=lambda pod: (not pod.gone, pod.created), default=None)


def _gpus_of(course: Course, attempt: Attempt) -> int:
    gpus = (course.spec.resources.gpus_per_node if course.spec.resources else None) or 0
    return 0 if attempt.stage == Stage.PREPARE else gpus
