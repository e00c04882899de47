"""A decision being built, and the arithmetic on it that several steps need."""

from dataclasses import KW_ONLY, dataclass, field

from lmft_api.reasons import PEERS, REASONS, Phase, Reason
from lmft_api.spec import LMFineTuneSpec
from lmft_api.status import Attempt, ConditionStatus, LMFineTuneStatus
from lmft_api.text.times import seconds, timestamp
from lmft_api.text.wording import sentence
from lmft_api.wire.run_file import Stage, same_spec
from lmft_operator.domain.facts import JobFacts, Observed, PodFacts
from lmft_operator.domain.plan import Plan
from lmft_operator.settings import OperatorSettings
from lmft_operator.status import edit
from lmft_operator.status.change import change
from lmft_operator.status.messages import linked

ADJUSTED = "Adjusted"
"""Reason of the Event about what a job adjusted in order to resume."""
EXPLAINED = frozenset(
    {Reason.UNSCHEDULABLE, Reason.QUOTA_EXCEEDED, Reason.ADMISSION_FAILED, Reason.IMAGE_PULL_FAILED}
    | {Reason.SECRET_NOT_FOUND, Reason.STALLED, *PEERS}
)
"""Reasons for waiting that need somebody's action."""


@dataclass(frozen=True)
class Notice:
    """An Event to post about the run."""

    warning: bool
    reason: str
    message: str


@dataclass(frozen=True)
class Decision:
    """What is wanted. ``look_again``: seconds until time alone may change it; ``closed``: Events on ended attempts."""

    status: LMFineTuneStatus
    _: KW_ONLY
    create: Plan | None = None
    delete_jobs: tuple[str, ...] = ()
    delete_services: tuple[int, ...] = ()
    """Attempts of several pods that have ended."""
    delete_run: bool = False
    closed: tuple[Notice, ...] = ()
    look_again: float | None = None


@dataclass
class DecisionDraft:
    """A decision being built."""

    seen: Observed
    spec: LMFineTuneSpec
    settings: OperatorSettings
    status: LMFineTuneStatus
    create: Plan | None = None
    delete: list[str] = field(default_factory=list)
    services: list[int] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)
    closed: list[Notice] = field(default_factory=list)

    def look(self, seconds: float | None) -> None:
        """Ask to be called again after some seconds, the soonest winning; None is ignored."""
        if seconds is not None:
            self.looks.append(max(0.0, seconds))

    def say(self, state: ConditionStatus, reason: Reason, message: str, phase: Phase) -> None:
        """Set the Succeeded condition; reasons that need somebody's action link to the page that explains them."""
        run = self.seen.run
        if state == ConditionStatus.FALSE or reason in EXPLAINED:
            message = linked(self.settings, reason, message)
        self.status = edit.with_condition(self.status, state, reason, message, phase, self.seen.now, run.generation)

    def wait(self, reason: Reason, message: str, phase: Phase = Phase.PENDING) -> None:
        """The run continues, in this state."""
        self.say(ConditionStatus.UNKNOWN, reason, message, phase)

    def end(self, reason: Reason, message: str) -> None:
        """The run has ended."""
        done = reason == Reason.COMPLETED
        self.say(
            ConditionStatus.TRUE if done else ConditionStatus.FALSE,
            reason,
            message or REASONS[reason].cause,
            Phase.SUCCEEDED if done else Phase.FAILED,
        )
        if self.status.completion_time is None:
            self.status = change(self.status, completion_time=timestamp(self.seen.now))

    def give_up(self, reason: Reason, message: str) -> None:
        """The run has ended by the operator's own decision: the message says what to try next."""
        self.end(reason, f"{sentence(message)} {REASONS[reason].remedy}")

    def stop(self, job: JobFacts | None) -> None:
        """Delete a Job, and its pods with it, unless it is being deleted."""
        if job is not None and not job.deleting and job.name not in self.delete:
            self.delete.append(job.name)

    def decision(self) -> Decision:
        """The finished decision."""
        look = min(self.looks, default=None)
        return Decision(
            self.status,
            create=self.create,
            delete_jobs=tuple(self.delete),
            delete_services=tuple(self.services),
            closed=tuple(self.closed),
            look_again=look,
        )


def newest_attempt(draft: DecisionDraft) -> Attempt | None:
    """The attempt with the highest number."""
    return draft.status.attempts[-1] if draft.status.attempts else None


def only_prepared(status: LMFineTuneStatus) -> bool:
    """Whether no attempt has trained yet, so that the manifest may still change."""
    return all(attempt.stage == Stage.PREPARE for attempt in status.attempts or ())


def superseded(draft: DecisionDraft) -> bool:
    """Whether the newest preparation is of a manifest that has changed since, before any attempt has trained."""
    newest = newest_attempt(draft)
    prepares = newest.spec_hash if newest is not None else None
    return only_prepared(draft.status) and prepares is not None and not same_spec(prepares, draft.spec)


def max_retries(draft: DecisionDraft) -> int:
    """How many failures are followed by another attempt."""
    chosen = draft.spec.max_retries
    return draft.settings.retries.default_max_retries if chosen is None else chosen


def deadline(draft: DecisionDraft) -> tuple[int | None, str]:
    """Longest running time over all attempts, seconds, and who sets it: the manifest, else policy; None: no limit."""
    if draft.spec.active_deadline_seconds is not None:
        return draft.spec.active_deadline_seconds, "spec.activeDeadlineSeconds"
    most = draft.settings.policy.for_namespace(draft.seen.run.key.namespace).max_deadline_seconds
    return most, "policy.maxDeadlineSeconds"


def time_left(draft: DecisionDraft, pod: PodFacts | None = None) -> float | None:
    """Running time left before the deadline, seconds; None without a deadline, or while nothing runs."""
    limit, _ = deadline(draft)
    if limit is None:
        return None
    left = float(limit - (draft.status.usage.seconds if draft.status.usage else 0))
    if pod is not None and pod.started is not None:
        until = pod.finished or draft.seen.now if pod.ended else draft.seen.now
        return left - (until - pod.started)
    return left if left <= 0 or pod is None else None


def time_is_up(draft: DecisionDraft) -> str:
    """Message for a run that has reached its deadline."""
    limit, source = deadline(draft)
    return f"The run has used its {limit} seconds ({source})."


def grace(draft: DecisionDraft) -> float:
    """Seconds that a pod has for saving a checkpoint after SIGTERM."""
    return draft.settings.job.termination_grace_period_seconds


def since(timestamp: str | None) -> float:
    """UNIX seconds of a time in the status; 0 for None."""
    return seconds(timestamp) or 0.0


def notices(before: LMFineTuneStatus, after: LMFineTuneStatus, closed: tuple[Notice, ...]) -> list[Notice]:
    """Events of one change of the status: how attempts ended, and the new phase unless an end already says it.

    Reasons that need somebody's action are always reported.
    """
    change = _notice_of(before, after)
    if after.ended:
        closed = tuple(notice for notice in closed if notice.reason == ADJUSTED)
    elif any(notice.reason != ADJUSTED for notice in closed) and after.reason not in EXPLAINED:
        change = None
    return [*closed, *([change] if change is not None else ())]


def _notice_of(before: LMFineTuneStatus, after: LMFineTuneStatus) -> Notice | None:
    """One Event for each change of phase or reason; the first Pending and evaluations have none."""
    old, new = before.succeeded, after.succeeded
    if new is None or (old is not None and old.reason == new.reason and before.phase == after.phase):
        return None
    if old is None and new.reason == Reason.PENDING:
        return None
    training = {Reason.TRAINING, Reason.EVALUATING}
    if old is not None and old.reason in training and new.reason in training and before.phase == after.phase:
        return None
    quiet = {Reason.PREPARING, Reason.TRAINING, Reason.EVALUATING, Reason.COMPLETED, Reason.PENDING, Reason.QUEUED}
    quiet |= {Reason.SUSPENDED}
    return Notice(new.reason not in quiet, new.reason, new.message)
