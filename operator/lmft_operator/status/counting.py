"""What a change of a run's status adds to the metrics."""

from lmft_api.status import Attempt, LMFineTuneStatus
from lmft_operator.domain.facts import Key
from lmft_operator.process import metrics


def ended_since(before: LMFineTuneStatus, after: LMFineTuneStatus) -> list[Attempt]:
    """The attempts that ended between two statuses."""
    ended_before = {a.number for a in before.attempts or () if a.end_time is not None}
    return [a for a in after.attempts or () if a.end_time is not None and a.number not in ended_before]


def count(key: Key, before: LMFineTuneStatus, after: LMFineTuneStatus) -> None:
    """Add attempts that have ended, and what they used."""
    for attempt in ended_since(before, after):
        metrics.ATTEMPTS.labels(key.namespace, attempt.reason or "").inc()
    if after.usage is not None:
        seconds, gpu = (before.usage.seconds, before.usage.gpu_seconds) if before.usage else (0, 0)
        metrics.SECONDS.labels(key.namespace).inc(max(0, after.usage.seconds - seconds))
        metrics.GPU_SECONDS.labels(key.namespace).inc(max(0, after.usage.gpu_seconds - gpu))
