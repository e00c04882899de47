"""How many nodes an attempt gets: as many as are wanted, or fewer while the cluster has no room for all of them."""

from lmft_api.spec.pod import Elastic
from lmft_api.status import Attempt
from lmft_operator.decide.draft import DecisionDraft
from lmft_operator.decide.peers import Pods

DEFAULT_WAIT_SECONDS = 600


def wanted(draft: DecisionDraft) -> int:
    """Nodes that the manifest asks for."""
    return (draft.spec.resources.nodes if draft.spec.resources else None) or 1


def next_nodes(draft: DecisionDraft, last: Attempt | None) -> int:
    """Nodes of the next attempt: fewer than wanted only after one that ended because there was no room for all.

    An attempt that starts for another reason tries the wanted number again.
    """
    rules, most = _rules(draft), wanted(draft)
    if rules is None or last is None or last.placed_nodes is None:
        return most
    return max(1, min(most, last.placed_nodes))


def fewer(draft: DecisionDraft, pods: Pods, nodes: int) -> int | None:
    """With how many nodes to go on instead, if pods have been unschedulable for as long as the manifest waits.

    Only that counts: a queued pod has no such time. Looks again when it is due.
    """
    rules = _rules(draft)
    if rules is None:
        return None
    since = [
        pod.created if pod.unschedulable_since is None else pod.unschedulable_since
        for pod in pods.values()
        if pod.unschedulable and pod.started is None and not pod.ended and pod.deleted is None
    ]
    if not since or (target := with_room(draft, pods, nodes)) is None:
        return None
    left = min(since) + (rules.wait_seconds or DEFAULT_WAIT_SECONDS) - draft.seen.now
    draft.look(left)
    return target if left <= 0 else None


def with_room(draft: DecisionDraft, pods: Pods, nodes: int) -> int | None:
    """Nodes that took a pod, at least as many as the manifest allows; None if no fewer are allowed."""
    rules = _rules(draft)
    least = (rules.min_nodes or 1) if rules is not None else nodes
    placed = sum(bool(pod.node) for pod in pods.values())
    return max(least, min(placed, nodes - 1)) if least < nodes else None


def _rules(draft: DecisionDraft) -> Elastic | None:
    return draft.spec.resources.elastic if draft.spec.resources else None
