"""An attempt of several pods: which of its pods says how it ended, and which one it waits for.

One lost pod ends all: the others lose their peer, save what they can, and are stopped. The verdict goes by the order of
causes, not of clocks, which differ between nodes: what index 0 achieved, an end that is final, a container that ended
by itself, a disruption, and last what is only an echo of another pod's end.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lmft_api.reasons import ExitCode, Reason
from lmft_api.status import Attempt
from lmft_api.text.times import timestamp
from lmft_api.text.wording import sentence
from lmft_operator.decide import judge
from lmft_operator.decide.draft import DecisionDraft
from lmft_operator.domain.facts import JobFacts, PodFacts
from lmft_operator.domain.verdict import OPEN, Kind, Verdict
from lmft_operator.jobs import manifest

Pods = Mapping[int, PodFacts]
"""The pods of an attempt by their number; one that was never seen is missing."""
_DONE, _FINAL, _ITSELF, _DISRUPTED, _ALONE, _STOPPED, _ECHO, _NEVER_BEGAN, _UNSEEN, _ENDED_WELL = range(10)
"""How an end of a pod explains that of the attempt, the best explanation first."""


def size(job: JobFacts | None, attempt: Attempt) -> int:
    """Pods of an attempt."""
    return job.nodes if job is not None else attempt.nodes or 1


def pods_of(draft: DecisionDraft, job: JobFacts | None, attempt: Attempt) -> dict[int, PodFacts]:
    """The pod of each number: the first that began, else the newest; existing pods before deleted ones.

    A label alone does not prove that a pod belongs to the attempt: whoever may create pods may label them. A pod that
    ended before it began and before its Job was started again was stopped by the queue, and the Job makes another one.
    A second pod that begins, when a queue preempts and readmits the Job at once, does not belong to the attempt.
    """
    numbered: dict[int, list[PodFacts]] = {}
    for pod in draft.seen.pods:
        if pod.attempt == attempt.number and (job is None or pod.owner in ("", job.uid)):
            numbered.setdefault(pod.index, []).append(pod)
    nodes, queued = size(job, attempt), manifest.queued(draft.spec, draft.settings)
    begun_at = attempt.start_time if queued and nodes == 1 else None
    chosen = {index: _chosen(pods, job, begun_at) for index, pods in numbered.items() if index < nodes}
    return {index: pod for index, pod in chosen.items() if pod is not None}


def _chosen(pods: list[PodFacts], job: JobFacts | None, begun_at: str | None) -> PodFacts | None:
    begun = [pod for pod in pods if pod.started is not None]
    if begun_at is not None:
        later = {p.uid for p in begun if not p.ended and timestamp(p.started or 0.0) != begun_at}
        pods, begun = ([pod for pod in some if pod.uid not in later] for some in (pods, begun))
    if begun:
        return min(begun, key=lambda pod: pod.started or 0.0)
    if job is not None and job.started is not None:
        pods = [pod for pod in pods if not pod.ended or pod.created >= job.started]
    return max(pods, key=lambda pod: (not pod.gone, pod.created), default=None)


def first_begun(pods: Pods) -> PodFacts | None:
    """The pod that began first; else the first one."""
    begun = [pod for pod in pods.values() if pod.started is not None]
    return min(begun, key=lambda pod: (pod.started or 0.0, pod.index)) if begun else pods.get(min(pods, default=0))


def awaited(pods: Pods) -> PodFacts | None:
    """The pod that keeps the others waiting: one that no node takes before one that starts; None if all have begun."""
    waiting = [pod for pod in pods.values() if pod.started is None and not pod.ended]
    waiting.sort(key=lambda pod: (not pod.unschedulable, not pod.waiting_reason, pod.index))
    return waiting[0] if waiting else None


@dataclass(frozen=True)
class Patience:
    """How long ends are waited for, in seconds: the grace period of a pod, and a margin beyond it."""

    grace: float
    margin: float


def judged(
    job: JobFacts | None, pods: Pods, nodes: int, now: float, patience: Patience, *, begun: bool
) -> tuple[Verdict, float | None]:
    """The verdict on an attempt of ``nodes`` pods, and in how many seconds an open one is judged without the others.

    Args:
        job: None when it was deleted.
        pods: its pods.
        nodes: how many there are to be.
        now: UNIX seconds.
        patience: for the pods that have not ended when one has.
        begun: whether the attempt is known to have run.
    """
    each = {index: _of_one(job, pods.get(index), now, patience, begun=begun) for index in range(nodes)}
    ends = {index: verdict for index, verdict in each.items() if verdict.kind != Kind.OPEN}
    absent = _absentees(pods, ends, nodes)
    missing = bool(absent)
    orders = {index: _order(index, pods.get(index), verdict, missing=missing) for index, verdict in ends.items()}
    causes = [index for index, order in orders.items() if order < _UNSEEN]
    if len(ends) < nodes:
        if not causes:
            return OPEN, None
        left = min(ends[index].ended or now for index in causes) + patience.grace + patience.margin - now
        if left > 0:
            return OPEN, left
    if not ends:
        return OPEN, None
    chosen = min(orders, key=lambda index: (orders[index], ends[index].result is None, index))
    return _whole(ends[chosen], chosen, orders[chosen], ends, pods, absent), None


def _absentees(pods: Pods, ends: Mapping[int, Verdict], nodes: int) -> list[PodFacts | None]:
    """The pods for which the others waited in vain; None for one that does not exist.

    A pod that takes the place of one that has given up waiting comes too late, and is stopped as soon as it starts.
    """
    given_up = min((end.ended for end in ends.values() if _is_echo(end) and end.ended is not None), default=None)
    found = [pods.get(index) for index in range(nodes)]
    return [
        pod for pod in found if pod is None or pod.started is None or (given_up is not None and pod.started > given_up)
    ]


def _is_echo(end: Verdict) -> bool:
    return end.kind == Kind.RETRY and end.exit_code == ExitCode.PEERS and end.reason == Reason.PEERS_MISSING


def _of_one(job: JobFacts | None, pod: PodFacts | None, now: float, patience: Patience, *, begun: bool) -> Verdict:
    if pod is None:
        return judge.judge(job, None, now, begun=begun)
    if pod.asked_to_end is not None and pod.finished is not None and pod.finished < pod.asked_to_end:
        pod = replace(pod, deleted=None)  # it ended by itself, and was deleted because of that
    verdict = judge.judge(job, pod, now, begun=begun)
    if verdict.kind != Kind.OPEN:
        return verdict
    due = pod.gone_at if pod.gone else pod.deleted
    if due is None or due + patience.margin > now:
        return OPEN
    words = "is gone and left no result" if pod.gone else "did not end within its grace period"
    return Verdict(Kind.INTERRUPTED, Reason.INTERRUPTED, f"Pod {pod.name} {words}.", started=pod.started, ended=due)


def _order(index: int, pod: PodFacts | None, verdict: Verdict, *, missing: bool) -> int:
    if index == 0 and verdict.kind in (Kind.DONE, Kind.UNREAD):
        return _DONE
    if verdict.kind in (Kind.DONE, Kind.UNREAD):
        return _ENDED_WELL
    if verdict.kind == Kind.FINAL:
        return _FINAL
    if pod is None:
        return _UNSEEN
    echo = _is_echo(verdict)
    if verdict.kind == Kind.RETRY and not echo:
        return _ITSELF
    if pod.disruption or pod.reason:
        return _DISRUPTED
    if echo:
        return _ALONE if missing else _ECHO
    return _STOPPED if pod.started is not None else _NEVER_BEGAN


def _whole(
    chosen: Verdict, index: int, order: int, ends: Mapping[int, Verdict], pods: Pods, absent: list[PodFacts | None]
) -> Verdict:
    """The chosen verdict with what concerns all pods: the result of index 0, times, and where it happened."""
    first = ends.get(0)
    spans = [(v.started, v.ended) for v in ends.values() if v.started is not None and v.ended is not None]
    message = chosen.message if order == _DONE else _placed(chosen.message, pods.get(index))
    if order == _ALONE:
        message = f"{sentence(message)} {_absent(absent)}"
    return replace(
        chosen,
        message=message,
        result=(first.result if first is not None else None) or chosen.result,
        started=min((start for start, _ in spans), default=None),
        ended=max((end for _, end in spans), default=chosen.ended),
        pod_seconds=sum(max(0.0, end - start) for start, end in spans),
        counted=order != _ALONE or all(pod is not None and pod.node and pod.started is None for pod in absent),
    )


def _placed(message: str, pod: PodFacts | None) -> str:
    """The message with the pod and the node that it is about."""
    if pod is None or pod.name in message:
        return message
    return f"Pod {pod.name}{f' on {pod.node}' if pod.node else ''}: {message}"


def _absent(absent: list[PodFacts | None]) -> str:
    """What is known of the pods that did not come."""
    known = [pod for pod in absent if pod is not None]
    unknown = len(absent) - len(known)
    words = [
        f"Pod {pod.name}{f' on {pod.node}' if pod.node else ''} "
        + ("has not started" if pod.started is None else "started only when another had given up")
        + (f": {judge.shown(pod.unschedulable)}" if pod.unschedulable else "")
        for pod in known[:3]
    ]
    if len(known) > 3:
        words.append(f"so have {len(known) - 3} more not")
    if unknown:
        words.append(f"{unknown} of its pods do not exist")
    return sentence("; ".join(words))
