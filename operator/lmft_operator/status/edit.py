"""Pure changes to the status: conditions, attempts, results, size limits, and the smallest patch."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lmft_api.figures import Scale, known
from lmft_api.reasons import Phase, Reason
from lmft_api.spec import LMFineTuneSpec
from lmft_api.status import (
    FINISHED,
    MAX_ATTEMPTS_KEPT,
    MAX_CONDITIONS,
    MAX_EVALUATIONS_KEPT,
    MAX_MESSAGE,
    MOST,
    SUCCEEDED,
    Attempt,
    Condition,
    ConditionStatus,
    EvaluationResult,
    LMFineTuneStatus,
    Progress,
    Results,
    Usage,
)
from lmft_api.status.reading import with_unknown
from lmft_api.text.times import timestamp
from lmft_api.text.wording import shorten
from lmft_api.wire.result import Result
from lmft_operator.domain.verdict import Verdict
from lmft_operator.status.change import Model, StatusValues, change, with_values


def with_condition(
    status: LMFineTuneStatus,
    state: ConditionStatus,
    why: Reason,
    message: str,
    phase: Phase,
    now: float,
    generation: int,
) -> LMFineTuneStatus:
    """The status with its Succeeded and Finished conditions; lastTransitionTime changes only with their status."""
    found = {condition.type: condition for condition in status.conditions or ()}

    def condition(kind: str, now_is: ConditionStatus, words: str) -> Condition:
        before = found.get(kind)
        return Condition(
            type=kind,
            status=now_is,
            reason=why.value,
            message=shorten(words, MAX_MESSAGE),
            last_transition_time=before.last_transition_time if before and before.status == now_is else timestamp(now),
            observed_generation=generation,
        )

    finished = ConditionStatus.FALSE if state == ConditionStatus.UNKNOWN else ConditionStatus.TRUE
    ours = [condition(SUCCEEDED, state, message), condition(FINISHED, finished, "")]
    others = [c for kind, c in found.items() if kind not in (SUCCEEDED, FINISHED)][: MAX_CONDITIONS - len(ours)]
    return change(status, phase=phase, observed_generation=generation, conditions=[*others, *ours])


def with_what_is_new(status: LMFineTuneStatus) -> LMFineTuneStatus:
    """The status with what an earlier release did not write: the short result and the Finished condition."""
    results, outcome = status.results, status.succeeded
    if results is not None and (display := displayed(results)) != results.display:
        status = change(status, results=change(results, display=display))
    if status.ended and outcome is not None and all(c.type != FINISHED for c in status.conditions or ()):
        finished = change(outcome, type=FINISHED, status=ConditionStatus.TRUE, message="")
        status = change(status, conditions=[*(status.conditions or ()), finished][-MAX_CONDITIONS:])
    return status


def displayed(results: Results) -> str | None:
    """The short result for kubectl get: ``accuracy 0.91`` or ``perplexity 49.61``; None while there is none."""
    for kind in known(results):
        value = str(getattr(results, kind.name))
        # Trailing zeros of a share are not worth showing.
        plain = value.rstrip("0").rstrip(".") if kind.scale == Scale.SHARE and "." in value else value
        return f"{kind.word} {plain}"
    return None


def with_attempt(status: LMFineTuneStatus, attempt: Attempt) -> LMFineTuneStatus:
    """The status with an attempt added or replaced; only the newest are kept."""
    attempts = {a.number: a for a in status.attempts or ()} | {attempt.number: attempt}
    kept = [attempts[number] for number in sorted(attempts)][-MAX_ATTEMPTS_KEPT:]
    return change(status, attempts=kept)


def closed(attempt: Attempt, verdict: Verdict, status: LMFineTuneStatus) -> Attempt:
    """The attempt with its end recorded; ``status`` already holds the checkpoint of its result."""
    counts = verdict.result.counts if verdict.result else None
    adjustments = verdict.result.adjustments if verdict.result else None
    return change(
        attempt,
        start_time=attempt.start_time or (timestamp(verdict.started) if verdict.started else None),
        end_time=timestamp(verdict.ended or 0.0),
        reason=verdict.reason.value,
        message=shorten(verdict.message, 1024) or None,
        exit_code=verdict.exit_code,
        highest_attempt=_above(attempt.number, verdict.result),
        cause=shorten(verdict.cause, 253) or None,
        resumed_from_step=counts.resumed_from_step if counts else attempt.resumed_from_step,
        lost_steps=counts.lost_steps if counts else attempt.lost_steps,
        adjustments=[shorten(a, MAX_MESSAGE) for a in adjustments[:16]] if adjustments else attempt.adjustments,
        checkpoint_step=status.checkpoint.step if status.checkpoint else None,
    )


def _above(number: int, result: Result | None) -> int | None:
    """The highest attempt that a result names, if it is above its own number."""
    highest = result.highest_attempt if result else None
    return highest if highest is not None and highest > number else None


def with_result(status: LMFineTuneStatus, result: Result, *, complete: bool) -> LMFineTuneStatus:
    """The status with the job's final result; fields that the job left out for lack of space keep their values."""
    updates: StatusValues = {}
    if result.results is not None:
        results = _merged(status.results, result.results)
        updates["results"] = change(results, display=displayed(results))
    if result.provenance is not None:
        updates["provenance"] = _merged(status.provenance, result.provenance)
    newest = status.checkpoint
    if result.checkpoint is not None and (newest is None or result.checkpoint.step >= newest.step):
        updates["checkpoint"] = result.checkpoint
    if result.evaluations:
        updates["evaluations"] = merged_evaluations(status.evaluations or (), result.evaluations)
    if complete:
        counts = result.counts
        progress = status.progress or Progress()
        updates["progress"] = change(
            progress,
            percent=100,
            display="100%",
            eta=None,
            step=counts.steps if counts and counts.steps is not None else progress.step,
            total_steps=counts.total_steps if counts and counts.total_steps is not None else progress.total_steps,
            tokens_per_second=counts.tokens_per_second if counts else progress.tokens_per_second,
        )
    return change(status, **updates)


def merged_evaluations(before: Sequence[EvaluationResult], after: Sequence[EvaluationResult]) -> list[EvaluationResult]:
    """Evaluations by step, the newer report winning, thinned evenly when there are too many."""
    by_step = {e.step: e for e in before} | {e.step: e for e in after}
    return thinned([by_step[step] for step in sorted(by_step)], MAX_EVALUATIONS_KEPT)


def thinned(items: list[Any], most: int) -> list[Any]:
    """At most ``most`` items: every second one is dropped until they fit; the first and the last are kept."""
    while len(items) > most:
        kept = items[::2]
        items = kept if (len(items) - 1) % 2 == 0 else [*kept, items[-1]]
    return items


def with_usage(status: LMFineTuneStatus, verdict: Verdict, gpus: int) -> LMFineTuneStatus:
    """The status with the running time of an ended attempt added, in whole seconds; ``gpus`` are those of a pod."""
    if verdict.started is None or verdict.ended is None:
        return status
    seconds = max(0, round(verdict.ended - verdict.started))
    used = status.usage or Usage()
    running = seconds if verdict.pod_seconds is None else max(0, round(verdict.pod_seconds))
    whole, on_gpus = used.seconds + seconds, used.gpu_seconds + running * gpus
    total = Usage(seconds=min(whole, MOST), gpu_seconds=min(on_gpus, MOST))
    return change(status, usage=total)


def without_eta(status: LMFineTuneStatus) -> LMFineTuneStatus:
    """The status of a run with nothing running: without the estimated end."""
    return status if status.progress is None else change(status, progress=change(status.progress, eta=None))


def model_column(spec: LMFineTuneSpec) -> str:
    """The model in short, for kubectl get."""
    if spec.model.name is not None:
        return shorten(spec.model.name, 253)
    return shorten(f"{(spec.model.from_config or {}).get('model_type', 'model')} (from config)", 253)


def patch(stored: str, before: LMFineTuneStatus, after: LMFineTuneStatus) -> dict[str, Any]:
    """The JSON merge patch from one status to another; empty when they are equal.

    Args:
        stored: the status as the API server has it; fields that this release does not know are kept.
        before: what was parsed from it.
        after: what it is to become.
    """
    known = before.to_json()
    changes = merge_patch(known, after.to_json())
    return with_unknown(changes, json.loads(stored), known) if changes else {}


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON merge patch (RFC 7386) that turns one object into the other; empty when they are equal."""
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        if key not in before:
            patch[key] = value
        elif isinstance(value, Mapping) and isinstance(before[key], Mapping):
            if inner := merge_patch(before[key], value):
                patch[key] = inner
        elif value != before[key]:
            patch[key] = value
    return patch


def _merged(before: Model | None, after: Model) -> Model:
    given = {name: getattr(after, name) for name in type(after).model_fields if getattr(after, name) is not None}
    return after if before is None else with_values(before, given)
