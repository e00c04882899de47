"""The end of an attempt: what is recorded of it, and what it means for the run."""

from dataclasses import replace

from lmft_api.reasons import Reason
from lmft_api.status import Attempt
from lmft_api.wire.run_file import Stage
from lmft_operator.decide import elastic, peers
from lmft_operator.decide.draft import (
    ADJUSTED,
    DecisionDraft,
    Notice,
    deadline,
    since,
    superseded,
    time_is_up,
    time_left,
)
from lmft_operator.decide.screening import acceptance_rules, screened
from lmft_operator.domain import alterations
from lmft_operator.domain.facts import JobFacts
from lmft_operator.domain.verdict import Kind, Verdict
from lmft_operator.jobs import manifest
from lmft_operator.status import edit
from lmft_operator.status.change import change


def close(draft: DecisionDraft, attempt: Attempt, outcome: Verdict, job: JobFacts | None, pods: peers.Pods) -> Attempt:
    """Record how an attempt ended, and end the run where that decides it."""
    run, nodes = draft.seen.run, peers.size(job, attempt)
    if nodes > 1:
        draft.services.append(attempt.number)
    if nodes > 1 or attempt.placed_nodes is not None:
        outcome, attempt = _with_next_nodes(draft, attempt, outcome, pods, nodes)
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
    left = len(pods) < nodes or any(pod.gone or not pod.ended for pod in pods.values())
    left = left or manifest.queued(draft.spec, draft.settings)
    left = left or (job is not None and job.repeats and outcome.exit_code is None)
    lagging = nodes > 1 and any(not pod.ended for pod in pods.values())
    if job is not None and (
        lagging or (not job.finished and (job.suspended or (left and outcome.kind == Kind.INTERRUPTED)))
    ):
        draft.stop(job)
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
    if outcome.kind == Kind.RETRY and outcome.counted and not of_another:
        draft.status = change(draft.status, failures=(draft.status.failures or 0) + 1)
    draft.closed += _notices(attempt, outcome, earlier)
    if outcome.reason == Reason.DEADLINE_EXCEEDED:
        draft.give_up(outcome.reason, outcome.message)
    elif complete or (outcome.kind == Kind.FINAL and not of_another):
        draft.end(outcome.reason, outcome.message)
    return attempt


def _with_next_nodes(
    draft: DecisionDraft, attempt: Attempt, outcome: Verdict, pods: peers.Pods, nodes: int
) -> tuple[Verdict, Attempt]:
    """What the end of an attempt means for the number of nodes of the next."""
    if attempt.placed_nodes is not None and outcome.kind == Kind.INTERRUPTED:
        words = f"There was no room for {nodes} nodes; the next attempt takes {attempt.placed_nodes}."
        if attempt.placed_nodes > nodes:
            words = f"There is room for {attempt.placed_nodes} nodes again; the next attempt takes them."
        return replace(outcome, message=words), attempt
    if outcome.reason == Reason.PEERS_MISSING and not outcome.counted:
        return outcome, change(attempt, placed_nodes=elastic.with_room(draft, pods, nodes))
    return outcome, change(attempt, placed_nodes=None)


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


def _gpus_of(draft: DecisionDraft, attempt: Attempt) -> int:
    gpus = (draft.spec.resources.gpus_per_node if draft.spec.resources else None) or 0
    return 0 if attempt.stage == Stage.PREPARE else gpus if attempt.gpus_per_node is None else attempt.gpus_per_node
