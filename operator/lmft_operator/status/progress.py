"""Progress reports of pods: who may report for which run, and the reported figures in the status. No I/O."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lmft_api.figures import ACCURACY, EVAL_LOSS, FIGURES, PERPLEXITY, decimal
from lmft_api.status import CheckpointStatus, EvaluationResult, LMFineTuneStatus, Progress, Results, finite
from lmft_api.text.times import timestamp
from lmft_api.wire.layout import checkpoint_folder
from lmft_api.wire.progress import MetricName, TrainerStatus
from lmft_operator.domain.facts import JobFacts, PodFacts
from lmft_operator.status import edit
from lmft_operator.status.change import StatusValues, change, with_values
from lmft_operator.tokens.identity import Identity, Refusal


@dataclass(frozen=True, slots=True)
class ProgressReport:
    """The newest report of a run, and when it was received (UNIX seconds)."""

    run_uid: str
    attempt: int
    received: float
    status: TrainerStatus
    pod_uid: str = ""


def admitted(who: Identity, pods: Sequence[PodFacts], jobs: Sequence[JobFacts]) -> PodFacts | Refusal:
    """The pod that may report, checked to belong to its Job, and the Job to its run.

    Labels alone prove nothing (whoever may create pods may label them); the owner's UID must be that of a Job of ours
    that belongs to the run that the label names.

    Args:
        who: the pod that the token is bound to, as verified.
        pods: known pods of the namespace.
        jobs: known Jobs of the namespace.
    """
    pod = next((p for p in pods if p.uid == who.pod_uid and p.name == who.pod), None)
    if pod is None or pod.gone:
        return Refusal(403, "pod")
    job = next((j for j in jobs if j.uid == pod.owner), None)
    if job is None or (job.run_uid, job.attempt) != (pod.run_uid, pod.attempt):
        return Refusal(403, "job")
    return pod


def merged(status: LMFineTuneStatus, report: ProgressReport, run_folder: str) -> LMFineTuneStatus:
    """The status with a report merged in: progress, a new evaluation, perplexity, the newest checkpoint.

    Args:
        status: the status in the resource.
        report: the newest report of the open attempt.
        run_folder: address of the run's folder in storage, for the checkpoint's address.
    """
    sent = report.status
    # transformers' own callback reports no percentage before the first step; neither does ours.
    percent = sent.progress_percentage
    step, total = _integer(sent.metric(MetricName.CURRENT_STEP)), _integer(sent.metric(MetricName.TOTAL_STEPS))
    progress = Progress(
        percent=percent,
        display=None if percent is None else f"{percent}%",
        eta=None if sent.estimated_remaining_seconds is None else duration(sent.estimated_remaining_seconds),
        step=step,
        total_steps=total,
        epoch=_decimal(sent.metric(MetricName.CURRENT_EPOCH), 2),
        loss=_decimal(sent.metric(MetricName.LOSS), 4),
        tokens_per_second=_integer(sent.metric(MetricName.TOKENS_PER_SECOND)),
        # Our clock, not the pod's: it is compared with our clock.
        last_update_time=timestamp(report.received),
    )
    updates: StatusValues = {"progress": progress}
    results = _results(status.results, sent)
    if results is not None:
        updates["results"] = results
    evaluation = _evaluation(sent)
    known = status.evaluations or []
    if evaluation is not None and all(entry.step != evaluation.step for entry in known):
        updates["evaluations"] = edit.merged_evaluations(known, [evaluation])
    saved = _integer(sent.metric(MetricName.CHECKPOINT_STEP))
    if saved is not None and (status.checkpoint is None or saved > status.checkpoint.step):
        uri = f"{run_folder}/{checkpoint_folder(report.attempt, saved, report.pod_uid)}"
        updates["checkpoint"] = CheckpointStatus(step=saved, uri=uri, time=timestamp(report.received))
    begun = _integer(sent.metric(MetricName.RESUMED_FROM_STEP))
    if begun is not None:
        # An attempt that is killed leaves no result that would report this.
        lost = _integer(sent.metric(MetricName.LOST_STEPS))
        updates["attempts"] = [
            change(attempt, resumed_from_step=begun, lost_steps=lost) if attempt.number == report.attempt else attempt
            for attempt in status.attempts or ()
        ]
    return change(status, **updates)


def newsworthy(before: LMFineTuneStatus, after: LMFineTuneStatus) -> bool:
    """Whether a report changes more than the progress itself, so that it should be written at once."""
    return (before.evaluations, before.results, before.attempts) != (after.evaluations, after.results, after.attempts)


def duration(seconds: int) -> str:
    """Seconds as kubectl writes ages: 45s, 3m10s, 2h5m, 3d4h."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days}d{hours % 24}h"
    if hours:
        return f"{hours}h{minutes % 60}m"
    return f"{minutes}m{seconds % 60}s" if minutes else f"{seconds}s"


def _results(results: Results | None, sent: TrainerStatus) -> Results | None:
    names = [(name, kind.digits) for kind in FIGURES for name in (kind.name, kind.baseline)]
    read = {name: _decimal(sent.metric(name), digits) for name, digits in names}
    found: dict[str, Any] = {name: value for name, value in read.items() if value is not None}
    loss = finite(sent.metric(EVAL_LOSS.name))
    # A user's own image with a plain Trainer reports only the loss.
    if loss is not None and loss < 700 and not found.keys() & {ACCURACY.name, PERPLEXITY.name}:
        found[PERPLEXITY.name] = decimal(math.exp(loss), PERPLEXITY.digits)
    if not found:
        return None
    merged = with_values(results or Results(), found)
    return change(merged, display=edit.displayed(merged))


def _evaluation(sent: TrainerStatus) -> EvaluationResult | None:
    figures: dict[str, Any] = {kind.name: _decimal(sent.metric(kind.name), kind.digits) for kind in FIGURES}
    step = _integer(sent.metric(MetricName.EVAL_STEP))
    if figures[EVAL_LOSS.name] is None or step is None:
        return None
    return EvaluationResult(
        step=step,
        epoch=_decimal(sent.metric(MetricName.EVAL_EPOCH), 2) or "0",
        train_loss=_decimal(sent.metric(MetricName.EVAL_TRAIN_LOSS), 4),
        **figures,
    )


def _integer(text: str | None) -> int | None:
    number = finite(text)
    return None if number is None or not 0 <= number < 2**53 else int(number)


def _decimal(text: str | None, digits: int) -> str | None:
    return decimal(finite(text), digits)
