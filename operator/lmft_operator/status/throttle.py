"""When a report is written to the status: news at once, progress at intervals, silence as a stall. No I/O.

The decision on a run does not use reports and says Training as long as a pod trains. The progress that was written
last is kept until the next patch is due, so that a look in between changes nothing.
"""

import re
from dataclasses import dataclass

from lmft_api.reasons import Phase, Reason
from lmft_api.status import Attempt, Condition, ConditionStatus, LMFineTuneStatus
from lmft_api.text.times import seconds, timestamp
from lmft_api.wire.progress import JobPhase, MetricName
from lmft_operator.settings import OperatorSettings
from lmft_operator.status import edit
from lmft_operator.status.messages import linked
from lmft_operator.status.progress import ProgressReport, merged, newsworthy

NEWS_BURST = 6
NEWS_SECONDS = 10.0
"""News is written at once, this many times in a row; after that, a run gets one patch in this many seconds."""
_SOON = 0.001
"""Seconds not worth another look: sums of floats are seldom exactly 0."""

_SAID = {
    JobPhase.EVALUATING: (Reason.EVALUATING, "Evaluating on the held-out data"),
    JobPhase.SAMPLING: (Reason.EVALUATING, "Answering the prompts"),
    JobPhase.SAVING: (Reason.TRAINING, "Saving model and report"),
}


_RANK = re.compile(r"rank [0-9]{1,6}( on [a-z0-9.-]{1,63})? \([0-9.]{1,5} times the median\)")


@dataclass(frozen=True, slots=True)
class PatchBudget:
    """How often the status of a run may be patched.

    Attributes:
        left: patches that news may still cause at once; refills over time.
        at: when ``left`` was computed, UNIX seconds.
        patched: when progress was written last, UNIX seconds.
    """

    left: float = NEWS_BURST
    at: float = 0.0
    patched: float = 0.0

    def allowance(self, now: float) -> float:
        """Patches that news may cause at once, at time ``now``."""
        return min(NEWS_BURST, self.left + max(0.0, now - self.at) / NEWS_SECONDS)


@dataclass(frozen=True, slots=True)
class ReceivedReports:
    """What was received about a run since the operator began to listen (UNIX seconds)."""

    since: float
    report: ProgressReport | None = None
    pace: PatchBudget = PatchBudget()


@dataclass(frozen=True, slots=True)
class Overlay:
    """A status with progress merged in, the seconds until time alone may change it, and the patch budget after it."""

    status: LMFineTuneStatus
    look_again: float | None
    pace: PatchBudget


def overlay(
    before: LMFineTuneStatus,
    wanted: LMFineTuneStatus,
    received: ReceivedReports,
    now: float,
    settings: OperatorSettings,
    run_folder: str,
) -> Overlay:
    """The status of a run after its newest report.

    Args:
        before: the status in the resource.
        wanted: the decided status, with the progress that was written last.
        received: reports received for the run, from any attempt.
        now: UNIX seconds.
        settings: how often to patch, and how long a silence counts as a stall.
        run_folder: address of the run's folder in storage.
    """
    condition, attempt = wanted.succeeded, next(reversed(wanted.attempts or []), None)
    running = condition is not None and condition.reason in (Reason.TRAINING, Reason.PREPARING)
    if condition is None or attempt is None or not running or settings.progress.url is None:
        return Overlay(wanted, None, received.pace)
    shown = _as_written(before, wanted, condition, attempt, now)
    report = received.report if received.report is not None and received.report.attempt == attempt.number else None
    last = report.received if report is not None else _last_written(wanted, attempt, received.since, now)
    if last is None:
        return Overlay(shown, None, received.pace)  # it may never report: a user's own image need not
    stale = settings.progress.stale_seconds - (now - last)
    after = shown if report is None else merged(wanted, report, run_folder)
    if stale <= 0:
        return Overlay(_stalled(after, report, settings, now), None, received.pace)
    if report is None:
        return Overlay(shown, stale, received.pace)
    after = _with_activity(after, report, now)
    if after == shown:
        return Overlay(shown, stale, received.pace)
    written = seconds(wanted.progress.last_update_time if wanted.progress else None) or 0.0
    wait = max(_past(written, now), received.pace.patched) + settings.progress.patch_seconds - now
    left = received.pace.allowance(now)
    if wait > 0 and (newsworthy(wanted, after) or after.reason != shown.reason):
        wait = min(wait, (1 - left) * NEWS_SECONDS)
        left -= 1
    if wait > _SOON:
        return Overlay(shown, min(wait, stale), received.pace)
    return Overlay(after, stale, PatchBudget(left, now, now))


def _as_written(
    before: LMFineTuneStatus, wanted: LMFineTuneStatus, condition: Condition, attempt: Attempt, now: float
) -> LMFineTuneStatus:
    """The decided status, with what was last written about the same attempt's activity."""
    written, newest = before.succeeded, next(reversed(before.attempts or []), None)
    kept = {condition.reason, Reason.STALLED.value}
    kept |= {Reason.EVALUATING.value} if condition.reason == Reason.TRAINING else set()
    if written is None or newest is None or newest.number != attempt.number or written.reason not in kept:
        return wanted
    # A stall that was written ends only with a new report, and there has been none yet.
    return _conditioned(wanted, Reason(written.reason), written.message, now)


def _with_activity(after: LMFineTuneStatus, report: ProgressReport, now: float) -> LMFineTuneStatus:
    """The condition from the activity that the pod reports: one of four phases, or none, as from a user's own image."""
    condition, progress = after.succeeded, after.progress
    if condition is None or condition.reason != Reason.TRAINING:
        return after  # preparing; merged() has kept the decided condition
    told = report.status.metric(MetricName.PHASE)
    where = f"step {progress.step} of {progress.total_steps}" if progress and progress.step is not None else ""
    resumed = _resumed(after, condition.message) + _straggler(report)
    if told in _SAID:
        reason, words = _SAID[JobPhase(str(told))]
        return _conditioned(after, reason, f"{words}, {where or 'before training'}.{resumed}", now)
    whole = f"{where}.{resumed}" if where and resumed else where or condition.message
    return _conditioned(after, Reason.TRAINING, whole, now)


def _straggler(report: ProgressReport) -> str:
    """The rank that every step waits for; a user's own image may send anything under this name."""
    rank = report.status.metric(MetricName.STRAGGLER) or ""
    return f" Every step waits for {rank}." if _RANK.fullmatch(rank) else ""


def _resumed(status: LMFineTuneStatus, runs: str) -> str:
    """Where the current attempt resumed, what that cost, and what ended the previous one; empty for the first."""
    attempts = status.attempts or []
    if len(attempts) < 2 or attempts[-1].resumed_from_step is None:
        return ""
    before, attempt = attempts[-2:]
    lost = f"; {attempt.lost_steps} steps repeated" if attempt.lost_steps else ""
    why = f" Attempt {before.number} ended with {before.reason}: {before.message}" if before.message else ""
    return f" {runs.rstrip('.')}, resumed from step {attempt.resumed_from_step}{lost}.{why}"


def _stalled(
    after: LMFineTuneStatus, report: ProgressReport | None, settings: OperatorSettings, now: float
) -> LMFineTuneStatus:
    progress = after.progress
    received = timestamp(report.received) if report else (progress.last_update_time if progress else None)
    words = (
        f"The pod runs but has not reported since {received}. It is not stopped; check its log, and whether it reaches "
        "the operator's progress service."
    )
    return _conditioned(after, Reason.STALLED, linked(settings, Reason.STALLED, words), now)


def _past(time: float, now: float) -> float:
    """A time in a status; 0 for one in the future, which an operator whose clock was ahead has written."""
    return time if time <= now else 0.0


def _last_written(wanted: LMFineTuneStatus, attempt: Attempt, since: float, now: float) -> float | None:
    """When the attempt last reported, from the status; not before the operator began to listen."""
    written = seconds(wanted.progress.last_update_time if wanted.progress else None)
    started = seconds(attempt.start_time)
    if written is None or started is None or written < started:
        return None
    return max(_past(written, now), since)


def _conditioned(status: LMFineTuneStatus, reason: Reason, message: str, now: float) -> LMFineTuneStatus:
    condition = status.succeeded
    generation = (condition.observed_generation if condition else None) or status.observed_generation or 1
    phase = status.phase or Phase.TRAINING
    return edit.with_condition(status, ConditionStatus.UNKNOWN, reason, message, phase, now, generation)
