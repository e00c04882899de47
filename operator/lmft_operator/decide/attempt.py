"""The open attempt: what it waits for or does, and what its end means for the run."""

from lmft_api.reasons import Phase, Reason
from lmft_api.spec.resolved import resolve
from lmft_api.status import Attempt, Condition, Provenance
from lmft_api.text.times import timestamp
from lmft_api.text.wording import shorten
from lmft_api.wire.run_file import Stage, same_spec, spec_hash
from lmft_operator.decide import admission, elastic, judge, peers, waiting
from lmft_operator.decide.admission import CANNOT_CREATE_POD
from lmft_operator.decide.closing import close
from lmft_operator.decide.draft import (
    DecisionDraft,
    grace,
    only_prepared,
    since,
    superseded,
    time_is_up,
    time_left,
)
from lmft_operator.domain.facts import JobFacts, PodFacts
from lmft_operator.domain.verdict import OPEN, Kind, Verdict
from lmft_operator.jobs import manifest
from lmft_operator.status import edit
from lmft_operator.status.change import change

MAX_ADOPTED = 9_999
"""Highest attempt number that is accepted from a Job's label alone: anybody may have written the label."""
REFUSED_SECONDS = 30.0
"""Seconds for which the Job of a first attempt is kept while its pod is refused."""


def adopt(draft: DecisionDraft, after: int) -> Attempt | None:
    """The next attempt whose Job exists though the status does not list it, as after a crash or in a burst."""
    found = (job for job in draft.seen.jobs if after < job.attempt <= MAX_ADOPTED)
    jobs = [job for job in found if not outdated(draft, job)]
    if not jobs:
        return None
    job = min(jobs, key=lambda job: job.attempt)
    prepares = job.spec_hash if job.stage == Stage.PREPARE else None
    attempt = listed(draft, job.attempt, job.name, job.stage, prepares or None, nodes=job.nodes)
    draft.status = edit.with_attempt(draft.status, attempt)
    settle_provenance(draft, job)
    return attempt


def listed(draft: DecisionDraft, number: int, job: str, stage: Stage, prepares: str | None, *, nodes: int) -> Attempt:
    """An attempt as the status lists it; with its number of devices where the manifest says how many."""
    wanted = draft.spec.resources
    said = wanted is not None and (wanted.nodes, wanted.gpus_per_node) != (None, None) and stage != Stage.PREPARE
    gpus = (wanted.gpus_per_node or 0) if wanted is not None and said else None
    return Attempt(
        number=number,
        job=job,
        stage=stage.value,
        spec_hash=prepares,
        nodes=nodes if said or nodes > 1 else None,
        gpus_per_node=gpus,
    )


def outdated(draft: DecisionDraft, job: JobFacts) -> bool:
    """Whether a Job was made from a manifest that was edited before the status listed the Job.

    The spec is immutable only once the status lists an attempt that trains; until then edits are accepted and the Job
    may be stale.
    """
    if not only_prepared(draft.status) or job.attempt in {a.number for a in draft.status.attempts or ()}:
        return False
    return bool(job.spec_hash) and not same_spec(job.spec_hash, draft.spec)


def clear_outdated(draft: DecisionDraft) -> bool:
    """Delete Jobs of an earlier manifest; returns whether they or their pods still block the next one."""
    seen, margin = draft.seen, draft.settings.retries.pod_end_margin_seconds
    jobs = [job for job in seen.jobs if outdated(draft, job)]
    for job in jobs:
        draft.stop(job)
    uids = {job.uid for job in jobs}
    pods = [pod for pod in seen.pods if pod.owner in uids and not pod.over]
    ends = [margin if pod.deleted is None else pod.deleted + margin - seen.now for pod in pods]
    left = max(ends, default=0.0)
    if left > 0 or draft.delete:
        draft.look(max(left, 1.0))
        draft.wait(Reason.PENDING, "The manifest changed while its Job was being created; the Job is created again.")
        return True
    return False


def settle_provenance(draft: DecisionDraft, job: JobFacts | None = None) -> None:
    """Set what the first attempt that trains fixes for good; until then, what the newest preparation is made from.

    If the Job exists, from what its pods are given.
    """
    known = draft.status.provenance
    earlier = (draft.status.attempts or [])[:-1]
    if known is not None and any(attempt.stage != Stage.PREPARE for attempt in earlier):
        return
    provenance = change(
        known or Provenance(),
        image=shorten((job.image if job else "") or manifest.image_of(draft.spec, draft.settings), 253),
        spec_hash=(job.spec_hash if job else "") or spec_hash(draft.spec),
        seed=resolve(draft.spec).training.seed,
    )
    draft.status = change(draft.status, provenance=provenance)


def follow(draft: DecisionDraft, attempt: Attempt) -> Attempt:
    """Update the open attempt; returns it, closed when it has ended."""
    seen = draft.seen
    job = next((job for job in seen.jobs if job.attempt == attempt.number), None)
    pods, nodes = peers.pods_of(draft, job, attempt), peers.size(job, attempt)
    pod = peers.first_begun(pods)
    outcome = _judged(draft, attempt, job, pods)
    if outcome.kind != Kind.OPEN:
        return close(draft, attempt, outcome, job, pods)
    if pod is not None and pod.started is not None and attempt.start_time is None:
        started = timestamp(pod.started)
        attempt = change(attempt, start_time=started)
        draft.status = edit.with_attempt(draft.status, attempt)
        if draft.status.start_time is None:
            draft.status = change(draft.status, start_time=started)
    if draft.spec.suspend:
        draft.stop(job)
        draft.wait(Reason.SUSPENDED, _stopping(pod), Phase.SUSPENDED)
        return attempt
    left, phase = time_left(draft, pod), draft.status.phase or Phase.TRAINING
    if left is not None and left <= 0:
        draft.stop(job)
        words = f"{time_is_up(draft)} {_stopping(pod)}"
        draft.wait(Reason.DEADLINE_EXCEEDED, words, phase)
        return attempt
    if job is not None and job.suspended and attempt.start_time is not None:
        # If the queue admitted the Job again it would make a second pod in the first one's folder; one pod an attempt.
        draft.stop(job)
        words = "The queue has preempted the run: the pod saves a checkpoint and ends, and the run is queued again."
        draft.wait(Reason.INTERRUPTED, words, phase)
        return attempt
    if superseded(draft):
        draft.stop(job)
        draft.wait(Reason.PREPARING, "The manifest has changed, and is prepared again.", Phase.PREPARING)
        return attempt
    if job is not None and pod is None and _withdrawn(draft, attempt, job):
        return attempt
    draft.look(left)
    other = attempt.placed_nodes or elastic.fewer(draft, pods, nodes) or elastic.grown(draft)
    if other is not None:
        return _with_others(draft, attempt, job, nodes, other)
    _describe(draft, attempt, job, pods)
    return attempt


def _judged(draft: DecisionDraft, attempt: Attempt, job: JobFacts | None, pods: peers.Pods) -> Verdict:
    nodes, begun = peers.size(job, attempt), attempt.start_time is not None
    if nodes == 1:
        pod = pods.get(0)
        outcome = judge.judge(job, pod, draft.seen.now, begun=begun)
        return _overdue(draft, attempt, job, pod) if outcome.kind == Kind.OPEN else outcome
    patience = peers.Patience(grace(draft), draft.settings.retries.pod_end_margin_seconds)
    outcome, left = peers.judged(job, pods, nodes, draft.seen.now, patience, begun=begun)
    draft.look(left)
    ends = [pod.gone_at if pod.gone else pod.deleted for pod in pods.values()]
    for end in ends:
        if outcome.kind == Kind.OPEN and end is not None:
            draft.look(max(1.0, end + patience.margin - draft.seen.now))
    return _overdue(draft, attempt, job, None) if outcome.kind == Kind.OPEN and not pods else outcome


def _with_others(draft: DecisionDraft, attempt: Attempt, job: JobFacts | None, nodes: int, others: int) -> Attempt:
    """Stop an attempt that the cluster has no room for, or that was to go on until it has; the next takes others."""
    draft.stop(job)
    attempt = change(attempt, placed_nodes=others)
    draft.status = edit.with_attempt(draft.status, attempt)
    if others > nodes:
        words = f"There is room for {others} nodes again: the run saves a checkpoint, and goes on with them."
        draft.wait(Reason.INTERRUPTED, words, Phase.TRAINING)
    else:
        words = f"There is no room for {nodes} nodes: the run goes on with {others} (spec.resources.elastic)."
        draft.wait(Reason.UNSCHEDULABLE, words)
    return attempt


def _withdrawn(draft: DecisionDraft, attempt: Attempt, job: JobFacts) -> bool:
    """Whether the first attempt counts as not made because its pod is refused, so that the manifest may still change.

    The Job is kept for a while, since its controller retries by itself. After that, or once the manifest has
    changed, it is deleted and a new one is created, whose pod is tried at once.
    """
    words = waiting.no_pod(job, draft.seen.warnings)
    first = [a.number for a in draft.status.attempts or ()] == [attempt.number]
    if (
        not words
        or not first
        or attempt.start_time is not None
        or job.failed_pods
        or not admission.refusal(words).changeable
    ):
        return False
    observed = draft.seen.status.observed_generation
    draft.status = change(draft.status, attempts=None, provenance=None)
    draft.wait(*admission.explained(CANNOT_CREATE_POD, words))
    left = job.created + REFUSED_SECONDS - draft.seen.now
    if left <= 0 or observed not in (None, draft.seen.run.generation):
        draft.stop(job)
    draft.look(left)
    return True


def _overdue(draft: DecisionDraft, attempt: Attempt, job: JobFacts | None, pod: PodFacts | None) -> Verdict:
    """Verdict on an open attempt whose end is overdue; it writes only to its own folder, so nothing waits for it."""
    now, margin = draft.seen.now, draft.settings.retries.pod_end_margin_seconds
    due: float | None = None
    words = ""
    if pod is not None and not pod.ended:
        where = f"its node {pod.node} may be gone" if pod.node else "it never had a node"
        words = f"Pod {pod.name} did not end within its grace period; {where}."
        left = time_left(draft, pod)
        if pod.deleted is not None:
            due = pod.deleted + margin
        elif left is not None and left <= 0 and job is None:
            due = now + left + grace(draft) + margin  # nobody stops a pod that was orphaned from its Job
    else:
        silent = judge.silent_since(job, pod, begun=attempt.start_time is not None)
        due = None if silent is None else silent + margin
        words = "The pod is gone and left no result, and its Job has not reported how it ended."
    if due is None or due > now:
        draft.look(None if due is None else due - now)
        return OPEN
    return Verdict(Kind.INTERRUPTED, Reason.INTERRUPTED, words, started=pod.started if pod else None, ended=now)


def _describe(draft: DecisionDraft, attempt: Attempt, job: JobFacts | None, pods: peers.Pods) -> None:
    """Set phase, reason and message of a run whose attempt is open."""
    nodes, queued = peers.size(job, attempt), job is not None and job.suspended
    peer = peers.awaited(pods) if nodes > 1 else None
    # Of several, one that is not there is what all wait for: a quota may forbid it.
    pod = peer if peer is not None or 0 < len(pods) < nodes else pods.get(0)
    stopping = any(each.deleted is not None for each in pods.values())
    begun = attempt.start_time is not None
    if (nodes == 1 or not pods) and judge.silent_since(job, pod, begun=begun) is not None:
        words = "The pod is gone; waiting for its Job to report how it ended."
        draft.wait(Reason.INTERRUPTED, words, draft.status.phase or Phase.PENDING)
    elif pod is None or pod.started is None or queued:
        rules = draft.settings.policy.for_namespace(draft.seen.run.key.namespace)
        requirements = manifest.requirements(draft.spec, draft.settings, rules, job.gpus if job else 0)
        said = _said_before(draft, attempt)
        wait = waiting.explain(job, pod, draft.seen.warnings, requirements, attempt.number, said)
        words = f"Pod {peer.name} of {nodes}: {wait.message}" if peer is not None and not queued else wait.message
        draft.wait(wait.reason, words)
    elif pod.orphaned and not stopping:
        draft.wait(Reason.TRAINING, f"Attempt {attempt.number} runs on. {_stopping(pod)}", Phase.TRAINING)
    elif stopping or job is None:
        draft.wait(Reason.INTERRUPTED, "The pod is being stopped; the next attempt follows.", Phase.TRAINING)
    elif attempt.stage == Stage.PREPARE:
        draft.wait(
            Reason.PREPARING,
            "Checking model, data set and storage on a CPU before asking for a GPU.",
            Phase.PREPARING,
        )
    else:
        where = pod.node or "a node" if nodes == 1 else f"{nodes} nodes, the first of them {pod.node or 'unknown'}"
        draft.wait(Reason.TRAINING, f"Attempt {attempt.number} runs on {where}.", Phase.TRAINING)


def _stopping(pod: PodFacts | None) -> str:
    """What happens to a pod that is to be stopped."""
    if pod is None or not pod.orphaned or pod.deleted is not None:
        return "Stopping: the pod saves a checkpoint and ends."
    return f"Its Job was deleted without its pod; kubectl delete pod {pod.name} stops it."


def _said_before(draft: DecisionDraft, attempt: Attempt) -> Condition | None:
    """The condition in the current status, if it describes this open attempt."""
    before = draft.seen.status
    newest = next(reversed(before.attempts or []), None)
    return before.succeeded if newest is not None and newest.number == attempt.number else None


def release(draft: DecisionDraft) -> None:
    """Delete the Jobs of pods that other containers keep running though ours has ended: they hold unused GPUs."""
    seen, margin = draft.seen, draft.settings.retries.pod_end_margin_seconds
    ends = {attempt.number: since(attempt.end_time) for attempt in draft.status.attempts or ()}
    for pod in seen.pods:
        job = next((job for job in seen.jobs if job.uid == pod.owner), None)
        # A pod without other containers ends by itself, however late a busy kubelet reports it.
        if job is None or not pod.ended or pod.over or not pod.running_others or pod.deleted is not None:
            continue
        left = (pod.finished or ends.get(pod.attempt) or seen.now) + margin - seen.now
        if left <= 0:
            draft.stop(job)
        draft.look(left)
