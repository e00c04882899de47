"""What follows when no attempt is under way: the next one, a wait, or the end of the run."""

from lmft_api.reasons import Phase, Reason
from lmft_api.run import Stage
from lmft_api.spec import Preparation
from lmft_api.status import MAX_ATTEMPTS_KEPT, Attempt
from lmft_operator import manifests, policy, status, waiting
from lmft_operator.attempts import settle_provenance
from lmft_operator.course import Course, grace, linked, max_retries, since, time_is_up, time_left
from lmft_operator.manifests import Plan
from lmft_operator.verdict import sentence

MAX_UNREAD = 3
"""Attempts in a row that may end well without leaving a result."""
FREE_INTERRUPTIONS = 3
"""Interruptions in a row without a new checkpoint that are followed at once; then with back-off."""

NOT_COUNTED = frozenset({Reason.INTERRUPTED, Reason.SUSPENDED, Reason.DEADLINE_EXCEEDED, Reason.COMPLETED})


def next_attempt(course: Course, last: Attempt | None, problems: tuple[str, ...]) -> None:
    """No attempt is open: start the next one, wait for something, or give up."""
    if last is not None and _given_up(course, last):
        return
    if problems:
        course.end(Reason.INVALID_SPEC, "; ".join(problems))
        return
    if course.spec.suspend:
        course.wait(Reason.SUSPENDED, "spec.suspend is true; set it to false to go on.", Phase.SUSPENDED)
        return
    left = time_left(course)
    if left is not None and left <= 0:
        course.give_up(Reason.DEADLINE_EXCEEDED, time_is_up(course))
        return
    if last is not None and _must_wait(course, last):
        return
    model_uri = _resume_model(course)
    if course.status.ended or (course.spec.resume_from is not None and model_uri is None):
        return
    plan = _plan(course, last, model_uri)
    course.create = plan
    attempt = Attempt(number=plan.attempt, job=plan.name, stage=plan.stage.value)
    course.status = status.with_attempt(course.status, attempt)
    settle_provenance(course)
    if model_uri is not None and course.status.provenance is not None:
        provenance = status.change(course.status.provenance, {"resumed_from": model_uri})
        course.status = status.change(course.status, {"provenance": provenance})
    wait = waiting.at_creation(plan.attempt, queued=manifests.queued(course.spec, course.settings))
    course.wait(wait.reason, wait.message)


def _given_up(course: Course, last: Attempt) -> bool:
    """Whether failures, idle interruptions or lost results have used up their chances; ends the run if so."""
    failures, retries = course.status.failures or 0, max_retries(course)
    words = f"{last.reason}: {last.message}" if last.message else str(last.reason)
    if failures > retries and last.reason not in NOT_COUNTED:
        if retries == 0 and last.reason in Reason.__members__.values():
            course.end(Reason(str(last.reason)), last.message or "")
        else:
            text = f"{failures} attempts failed, spec.maxRetries is {retries}. The last one: {words}"
            course.give_up(Reason.RETRIES_EXHAUSTED, text)
        return True
    idle = _idle_interruptions(course)
    if idle > _most_idle(course):
        text = f"Interrupted {idle} times in a row without a new checkpoint. The last time: {words}"
        course.give_up(Reason.RETRIES_EXHAUSTED, text)
        return True
    if _trailing_unread(course) >= MAX_UNREAD:
        text = (
            f"{MAX_UNREAD} attempts in a row were for nothing; is the image one of ours? The last one: {last.message}"
        )
        course.give_up(Reason.INTERNAL_ERROR, text)
        return True
    return False


def _must_wait(course: Course, last: Attempt) -> bool:
    """Whether the next attempt is not due yet: an old pod still ends, or a back-off runs."""
    seen, retries = course.seen, course.settings.retries
    for pod in seen.pods:
        if pod.ended:
            continue
        # An old pod may be uploading its checkpoint; deletionTimestamp is when its grace period ends.
        if pod.deleted is None:
            course.wait(Reason.INTERRUPTED, f"Waiting for pod {pod.name} to be stopped.")
            course.look(retries.pod_end_margin_seconds)
            if since(last.end_time) + grace(course) + retries.pod_end_margin_seconds > seen.now:
                return True
            continue
        left = pod.deleted + retries.pod_end_margin_seconds - seen.now
        if left > 0:
            course.wait(Reason.INTERRUPTED, f"Waiting for pod {pod.name} to end.")
            course.look(left)
            return True
    delay, reason = 0.0, Reason.RETRYING
    if last.reason == Reason.INTERRUPTED:
        idle, reason = _idle_interruptions(course), Reason.INTERRUPTED
        delay = _backoff(course, idle - FREE_INTERRUPTIONS) if idle > FREE_INTERRUPTIONS else 0.0
    elif last.reason not in NOT_COUNTED:
        delay = _backoff(course, course.status.failures or 1)
    left = since(last.end_time) + delay - seen.now
    if left <= 0:
        return False
    words = sentence(f"Attempt {last.number} ended with {last.reason}" + (f": {last.message}" if last.message else ""))
    cause = Reason(str(last.reason)) if last.reason in Reason.__members__.values() else reason
    course.wait(reason, linked(course.settings, cause, f"{words} Trying again after {delay:.0f} s."))
    course.look(left)
    return True


def _resume_model(course: Course) -> str | None:
    """Model or checkpoint of the run that spec.resumeFrom names; says what is missing while there is none."""
    wanted, source, provenance = course.spec.resume_from, course.seen.source, course.status.provenance
    if wanted is None:
        return None
    if provenance is not None and provenance.resumed_from is not None:
        return provenance.resumed_from  # settled by the first attempt; the other run may be gone by now
    name = f'LMFineTune "{wanted.name}" (spec.resumeFrom)'
    if source is None or not source.exists:
        course.wait(Reason.PENDING, f"Waits for {name}, which does not exist in this namespace.")
    elif not source.ended:
        course.wait(Reason.PENDING, f"Waits for {name} to end.")
    elif source.uri is None:
        words = f"{name} has ended with neither a model nor a checkpoint; name another run"
        course.end(Reason.INVALID_SPEC, f"spec.resumeFrom.name: {words}")
    elif refused := policy.unreadable(source.uri, course.spec, course.settings, course.seen.run.key.namespace):
        course.end(Reason.INVALID_SPEC, "; ".join(map(str, refused)))
    else:
        return source.uri
    return None


def _plan(course: Course, last: Attempt | None, model_uri: str | None) -> Plan:
    seen = course.seen
    numbers = [a.number for a in course.status.attempts or ()]
    number = max([0, *numbers, *(j.attempt for j in seen.jobs), *(p.attempt for p in seen.pods)]) + 1
    gpus = (course.spec.resources.gpus_per_node if course.spec.resources else None) or 0
    prepared = any(
        (a.stage == Stage.PREPARE and a.reason == Reason.COMPLETED) or a.stage == Stage.TRAIN
        for a in course.status.attempts or ()
    )
    separate = course.spec.preparation == Preparation.SEPARATE or (
        course.spec.preparation in (None, Preparation.AUTO) and gpus > 0
    )
    stage = Stage.ALL if not separate else Stage.TRAIN if prepared else Stage.PREPARE
    if stage == Stage.PREPARE or (last is not None and _unread(last)):
        gpus = 0  # nothing to compute: preparing needs none, and a finished run answers from its report
    name = manifests.job_name(seen.run.key.name, number, stage)
    return Plan(name, number, stage, gpus, model_uri)


def _unread(attempt: Attempt) -> bool:
    return attempt.reason == Reason.COMPLETED and attempt.stage != Stage.PREPARE


def _trailing_unread(course: Course) -> int:
    count = 0
    for attempt in reversed(course.status.attempts or ()):
        if not _unread(attempt):
            break
        count += 1
    return count


def _most_idle(course: Course) -> int:
    """Interruptions in a row without a newer checkpoint: the platform's bound, or what the run itself asks for.

    No more than the status keeps attempts to count.
    """
    return max(course.settings.retries.max_idle_interruptions, min(course.spec.max_retries or 0, MAX_ATTEMPTS_KEPT - 1))


def _idle_interruptions(course: Course) -> int:
    """Interruptions in a row, the newest included, without a newer checkpoint in between."""
    attempts = course.status.attempts or []
    count = 0
    for attempt in reversed(attempts):
        if attempt.reason != Reason.INTERRUPTED or attempt.checkpoint_step != attempts[-1].checkpoint_step:
            break
        count += 1
    return count


def _backoff(course: Course, count: int) -> float:
    retries = course.settings.retries
    return min(retries.max_seconds, retries.initial_seconds * 2.0 ** min(max(count - 1, 0), 30))
