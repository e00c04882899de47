"""What to do about one run: a pure function from what is observed to a wanted Job, a status and the next look.

Level-triggered: nothing but the observation decides, so that a decision repeated, late or after a restart comes out
the same. One attempt is open at a time; what follows its end is decided here and nowhere else.
"""

from dataclasses import dataclass, field

from lmft_api.reasons import REASONS, Phase, Reason
from lmft_api.run import Stage, spec_hash
from lmft_api.settings import resolve
from lmft_api.spec import LMFineTuneSpec, Preparation
from lmft_api.status import Attempt, ConditionStatus, LMFineTuneStatus, Provenance
from lmft_operator import manifests, status, verdict, waiting
from lmft_operator.facts import JobFacts, Observed, PodFacts, seconds
from lmft_operator.manifests import Plan
from lmft_operator.settings import OperatorSettings
from lmft_operator.verdict import Kind, Verdict

MAX_UNREAD = 3
"""Attempts in a row that may end well without leaving a result."""
FREE_INTERRUPTIONS = 3
"""Interruptions in a row without a new checkpoint that are followed at once; then with back-off."""

_MAY_GO_ON = frozenset(
    {Reason.INTERRUPTED, Reason.OUT_OF_MEMORY, Reason.STORAGE_UNAVAILABLE, Reason.HUNG, Reason.INTERNAL_ERROR}
    | {Reason.ACCELERATOR_MISSING, Reason.DEADLINE_EXCEEDED}
)
_NOT_COUNTED = frozenset({Reason.INTERRUPTED, Reason.SUSPENDED, Reason.DEADLINE_EXCEEDED, Reason.COMPLETED})


@dataclass(frozen=True)
class Notice:
    """An Event to post about the run."""

    warning: bool
    reason: str
    message: str


@dataclass(frozen=True)
class Decision:
    """What is wanted. ``look_again``: seconds until time alone may change it."""

    status: LMFineTuneStatus
    create: Plan | None = None
    delete_jobs: tuple[str, ...] = ()
    delete_run: bool = False
    notice: Notice | None = None
    look_again: float | None = None


@dataclass
class _Course:
    """A decision in the making."""

    seen: Observed
    spec: LMFineTuneSpec
    settings: OperatorSettings
    status: LMFineTuneStatus
    create: Plan | None = None
    delete: list[str] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)

    def look(self, seconds: float | None) -> None:
        if seconds is not None:
            self.looks.append(max(0.0, seconds))

    def say(self, state: ConditionStatus, reason: Reason, message: str, phase: Phase) -> None:
        run = self.seen.run
        self.status = status.with_condition(self.status, state, reason, message, phase, self.seen.now, run.generation)

    def wait(self, reason: Reason, message: str, phase: Phase = Phase.PENDING) -> None:
        self.say(ConditionStatus.UNKNOWN, reason, message, phase)

    def end(self, reason: Reason, message: str) -> None:
        done = reason == Reason.COMPLETED
        self.say(
            ConditionStatus.TRUE if done else ConditionStatus.FALSE,
            reason,
            message or REASONS[reason].cause,
            Phase.SUCCEEDED if done else Phase.FAILED,
        )
        if self.status.completion_time is None:
            self.status = status.change(self.status, {"completion_time": status.timestamp(self.seen.now)})

    def decision(self, before: LMFineTuneStatus) -> Decision:
        look = min(self.looks, default=None)
        return Decision(self.status, self.create, tuple(self.delete), False, _notice(before, self.status), look)


def decide(
    seen: Observed, spec: LMFineTuneSpec | None, problems: tuple[str, ...], settings: OperatorSettings
) -> Decision:
    """The decision about one run.

    Args:
        seen: what is observed.
        spec: with the platform's defaults filled in; None when it cannot be read.
        problems: everything wrong with the manifest or refused by policy.
        settings: of the operator.
    """
    before = status.parse(seen.run.status)
    if seen.run.deleting:
        return Decision(before)
    if spec is None:
        return _invalid(seen, before, problems)
    course = _Course(seen, spec, settings, before)
    if status.ended(before) and not _revived(course, problems):
        return _after_the_end(course, before)
    _adopt(course)
    newest = _newest(course)
    if newest is None and problems:
        return _invalid(seen, before, problems)
    course.status = status.change(course.status, {"completion_time": None, "model": status.model_column(spec)})
    if newest is not None and newest.end_time is None:
        newest = _follow(course, newest)
    if not status.ended(course.status) and (newest is None or newest.end_time is not None):
        _next(course, newest, problems)
    return course.decision(before)


# ---- the end of a run ------------------------------------------------------------------------------------------


def _invalid(seen: Observed, before: LMFineTuneStatus, problems: tuple[str, ...]) -> Decision:
    message = "; ".join(problems)
    now, generation = seen.now, seen.run.generation
    after = status.with_condition(
        before, ConditionStatus.FALSE, Reason.INVALID_SPEC, message, Phase.FAILED, now, generation
    )
    if after.completion_time is None:
        after = status.change(after, {"completion_time": status.timestamp(now)})
    return Decision(after, notice=_notice(before, after))


def _revived(course: _Course, problems: tuple[str, ...]) -> bool:
    """Whether an ended run goes on: mended before its first attempt, or given more retries or time."""
    before, run = course.status, course.seen.run
    if status.reason(before) == Reason.INVALID_SPEC and not before.attempts:
        return True
    if problems or before.observed_generation == run.generation or status.reason(before) == Reason.COMPLETED:
        return False
    last = _newest(course)
    if last is None or last.reason not in _MAY_GO_ON:
        return False
    left = _time_left(course)
    return (before.failures or 0) <= _max_retries(course) and (left is None or left > 0)


def _after_the_end(course: _Course, before: LMFineTuneStatus) -> Decision:
    seen = course.seen
    after = before
    if before.observed_generation != seen.run.generation:
        after = status.change(before, {"observed_generation": seen.run.generation})
    live = [job.name for job in seen.jobs if not job.finished and not job.deleting]
    ttl, end = course.spec.ttl_seconds_after_finished, before.completion_time
    look: float | None = None
    if ttl is not None and end is not None:
        look = _since(end) + ttl - seen.now
        if look <= 0:
            return Decision(after, delete_run=True)
    return Decision(after, delete_jobs=tuple(live), look_again=look)


# ---- the open attempt ------------------------------------------------------------------------------------------


def _adopt(course: _Course) -> None:
    """Jobs that exist and that the status does not list yet: created just before a crash, or by an older status."""
    known = {attempt.number for attempt in course.status.attempts or ()}
    highest = max(known, default=0)
    for job in sorted(course.seen.jobs, key=lambda job: job.attempt):
        if job.attempt > highest and job.attempt not in known:
            attempt = Attempt(number=job.attempt, job=job.name, stage=job.stage.value)
            course.status = status.with_attempt(course.status, attempt)
            _first_attempt(course)


def _first_attempt(course: _Course) -> None:
    """What is settled with the first attempt: provenance."""
    if course.status.provenance is not None:
        return
    provenance = Provenance(
        image=status.cut(manifests.image_of(course.spec, course.settings), 253),
        spec_hash=spec_hash(course.spec),
        seed=resolve(course.spec).training.seed,
    )
    course.status = status.change(course.status, {"provenance": provenance})


def _follow(course: _Course, attempt: Attempt) -> Attempt:
    """Look after the open attempt; returns it, closed when it has ended."""
    seen = course.seen
    job = next((job for job in seen.jobs if job.attempt == attempt.number), None)
    pod = _pod_of(seen, attempt.number)
    outcome = verdict.judge(job, pod, seen.now)
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
    left = _time_left(course, pod)
    if left is not None and left <= 0:
        _stop(course, job)
        words = f"The run has used its {_deadline(course)} seconds (spec.activeDeadlineSeconds)."
        end = Verdict(Kind.FINAL, Reason.DEADLINE_EXCEEDED, words, None, pod.started if pod else None, seen.now)
        return _close(course, attempt, end, job)
    course.look(left)
    _describe(course, attempt, job, pod)
    return attempt


def _describe(course: _Course, attempt: Attempt, job: JobFacts | None, pod: PodFacts | None) -> None:
    """Phase, reason and message of a run whose attempt is under way."""
    queued = job is not None and job.suspended
    stopping = pod is not None and pod.deleted is not None
    if pod is None or pod.started is None or queued:
        wait = waiting.explain(job, pod, course.seen.warnings, course.seen.now, attempt.number)
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


def _stop(course: _Course, job: JobFacts | None) -> None:
    if job is not None and not job.deleting:
        course.delete.append(job.name)


def _close(course: _Course, attempt: Attempt, outcome: Verdict, job: JobFacts | None) -> Attempt:
    """Write down how an attempt ended, and end the run where that settles it."""
    if course.spec.suspend and outcome.kind == Kind.INTERRUPTED:
        outcome = Verdict(
            Kind.INTERRUPTED,
            Reason.SUSPENDED,
            "Stopped by spec.suspend.",
            outcome.exit_code,
            outcome.started,
            outcome.ended,
            outcome.result,
        )
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
    if complete or outcome.kind == Kind.FINAL:
        course.end(outcome.reason, _linked(course, outcome.reason, outcome.message))
    return attempt


# ---- the next attempt ------------------------------------------------------------------------------------------


def _next(course: _Course, last: Attempt | None, problems: tuple[str, ...]) -> None:
    """No attempt is open: start the next one, wait for something, or give up."""
    if last is not None and _given_up(course, last):
        return
    if problems:
        course.end(Reason.INVALID_SPEC, "; ".join(problems))
        return
    if course.spec.suspend:
        course.wait(Reason.SUSPENDED, "spec.suspend is true; set it to false to go on.", Phase.SUSPENDED)
        return
    left = _time_left(course)
    if left is not None and left <= 0:
        words = f"The run has used its {_deadline(course)} seconds (spec.activeDeadlineSeconds)."
        course.end(Reason.DEADLINE_EXCEEDED, _linked(course, Reason.DEADLINE_EXCEEDED, words))
        return
    if last is not None and _must_wait(course, last):
        return
    model_uri = _resume_model(course)
    if status.ended(course.status) or (course.spec.resume_from is not None and model_uri is None):
        return
    plan = _plan(course, last, model_uri)
    course.create = plan
    attempt = Attempt(number=plan.attempt, job=plan.name, stage=plan.stage.value)
    course.status = status.with_attempt(course.status, attempt)
    _first_attempt(course)
    if model_uri is not None and course.status.provenance is not None:
        provenance = status.change(course.status.provenance, {"resumed_from": model_uri})
        course.status = status.change(course.status, {"provenance": provenance})
    course.wait(Reason.PENDING, f"Waiting for the pod of attempt {plan.attempt} to start.")


def _given_up(course: _Course, last: Attempt) -> bool:
    """Whether failures, idle interruptions or lost results have used up their chances; ends the run if so."""
    failures, retries = course.status.failures or 0, _max_retries(course)
    words = f"{last.reason}: {last.message}" if last.message else str(last.reason)
    if failures > retries and last.reason not in _NOT_COUNTED:
        if retries == 0 and last.reason in Reason.__members__.values():
            course.end(Reason(str(last.reason)), _linked(course, Reason(str(last.reason)), last.message or ""))
        else:
            text = f"{failures} attempts failed, spec.maxRetries is {retries}. The last one: {words}"
            course.end(Reason.RETRIES_EXHAUSTED, _linked(course, Reason.RETRIES_EXHAUSTED, text))
        return True
    idle = _idle_interruptions(course)
    if idle > course.settings.retries.max_idle_interruptions:
        text = f"Interrupted {idle} times in a row without a new checkpoint. The last time: {words}"
        course.end(Reason.RETRIES_EXHAUSTED, _linked(course, Reason.RETRIES_EXHAUSTED, text))
        return True
    if _trailing_unread(course) >= MAX_UNREAD:
        text = "The job ends well but leaves no result; is the image one of ours?"
        course.end(Reason.INTERNAL_ERROR, _linked(course, Reason.INTERNAL_ERROR, text))
        return True
    return False


def _must_wait(course: _Course, last: Attempt) -> bool:
    """Whether the next attempt is not due yet: an old pod still ends, or a back-off runs."""
    seen, retries = course.seen, course.settings.retries
    for pod in seen.pods:
        if pod.ended:
            continue
        # An old pod may be uploading its checkpoint; deletionTimestamp is when its grace period ends.
        if pod.deleted is None:
            course.wait(Reason.INTERRUPTED, f"Waiting for pod {pod.name} to be stopped.")
            course.look(retries.pod_end_margin_seconds)
            if _since(last.end_time) + _grace(course) + retries.pod_end_margin_seconds > seen.now:
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
    elif last.reason not in _NOT_COUNTED:
        delay = _backoff(course, course.status.failures or 1)
    left = _since(last.end_time) + delay - seen.now
    if left <= 0:
        return False
    words = f"Attempt {last.number} ended with {last.reason}: {last.message or ''}"
    course.wait(reason, f"{words} Trying again after {delay:.0f} s.")
    course.look(left)
    return True


def _resume_model(course: _Course) -> str | None:
    """Model of the run that spec.resumeFrom names; says what is missing while there is none."""
    wanted, source = course.spec.resume_from, course.seen.source
    if wanted is None:
        return None
    name = f'LMFineTune "{wanted.name}" (spec.resumeFrom)'
    if source is None or not source.exists:
        course.wait(Reason.PENDING, f"Waits for {name}, which does not exist in this namespace.")
    elif source.model_uri is None and source.ended:
        course.end(Reason.INVALID_SPEC, f"spec.resumeFrom.name: {name} has ended without a model; name another run")
    elif source.model_uri is None or not source.ended:
        course.wait(Reason.PENDING, f"Waits for {name} to complete.")
    else:
        return source.model_uri
    return None


def _plan(course: _Course, last: Attempt | None, model_uri: str | None) -> Plan:
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


# ---- small arithmetic ------------------------------------------------------------------------------------------


def _newest(course: _Course) -> Attempt | None:
    return course.status.attempts[-1] if course.status.attempts else None


def _pod_of(seen: Observed, number: int) -> PodFacts | None:
    """The newest pod of an attempt; one that exists before one that is gone."""
    pods = [pod for pod in seen.pods if pod.attempt == number]
    return max(pods, key=lambda pod: (not pod.gone, pod.created), default=None)


def _gpus_of(course: _Course, attempt: Attempt) -> int:
    gpus = (course.spec.resources.gpus_per_node if course.spec.resources else None) or 0
    return 0 if attempt.stage == Stage.PREPARE else gpus


def _unread(attempt: Attempt) -> bool:
    return attempt.reason == Reason.COMPLETED and attempt.stage != Stage.PREPARE


def _trailing_unread(course: _Course) -> int:
    count = 0
    for attempt in reversed(course.status.attempts or ()):
        if not _unread(attempt):
            break
        count += 1
    return count


def _idle_interruptions(course: _Course) -> int:
    """Interruptions in a row, the newest included, without a newer checkpoint in between."""
    attempts = course.status.attempts or []
    count = 0
    for attempt in reversed(attempts):
        if attempt.reason != Reason.INTERRUPTED or attempt.checkpoint_step != attempts[-1].checkpoint_step:
            break
        count += 1
    return count


def _max_retries(course: _Course) -> int:
    chosen = course.spec.max_retries
    return course.settings.retries.default_max_retries if chosen is None else chosen


def _backoff(course: _Course, count: int) -> float:
    retries = course.settings.retries
    return min(retries.max_seconds, retries.initial_seconds * 2.0 ** min(max(count - 1, 0), 30))


def _grace(course: _Course) -> float:
    return course.settings.job.termination_grace_period_seconds


def _deadline(course: _Course) -> int | None:
    most = course.settings.policy.for_namespace(course.seen.run.key.namespace).max_deadline_seconds
    return course.spec.active_deadline_seconds if course.spec.active_deadline_seconds is not None else most


def _time_left(course: _Course, pod: PodFacts | None = None) -> float | None:
    """Running time left under the deadline, seconds; None without one, or while nothing runs that could use it."""
    deadline = _deadline(course)
    if deadline is None:
        return None
    left = float(deadline - (course.status.usage.seconds if course.status.usage else 0))
    if pod is not None and pod.started is not None:
        return left - (course.seen.now - pod.started)
    return left if left <= 0 or pod is None else None


def _since(timestamp: str | None) -> float:
    return seconds(timestamp) or 0.0


def _linked(course: _Course, reason: Reason, message: str) -> str:
    url = course.settings.documentation_url
    return f"{message} See {url}#{reason.value.lower()}" if url and reason != Reason.COMPLETED else message


def _notice(before: LMFineTuneStatus, after: LMFineTuneStatus) -> Notice | None:
    """One Event for each change of phase or reason; the first Pending goes without saying."""
    old, new = status.condition(before), status.condition(after)
    if new is None or (old is not None and old.reason == new.reason and before.phase == after.phase):
        return None
    if old is None and new.reason == Reason.PENDING:
        return None
    quiet = {Reason.PREPARING, Reason.TRAINING, Reason.EVALUATING, Reason.COMPLETED, Reason.PENDING, Reason.QUEUED}
    quiet |= {Reason.SUSPENDED}
    return Notice(new.reason not in quiet, new.reason, new.message)
