"""How many nodes an attempt gets: as many as are wanted, or fewer while the cluster has no room for all of them.

A run on fewer is stopped to grow again at a checkpoint only, ``retries.grow_seconds`` or more after the last try, and
where the missing nodes are seen to have room. Its pods save once more when they are stopped, so that nothing is lost.
"""

from lmft_api.spec import LMFineTuneSpec
from lmft_api.spec.pod import Elastic
from lmft_api.status import Attempt
from lmft_api.wire.run_file import Stage
from lmft_operator.decide.draft import DecisionDraft, newest_attempt, since
from lmft_operator.decide.peers import Pods
from lmft_operator.domain.facts import Observed
from lmft_operator.domain.plan import PodRequirements
from lmft_operator.jobs import manifest
from lmft_operator.settings import OperatorSettings

DEFAULT_WAIT_SECONDS = 600
FRESH_SECONDS = 120.0
"""How long after it was saved a checkpoint is where a run may be stopped."""


def wanted(draft: DecisionDraft) -> int:
    """Nodes that the manifest asks for."""
    return (draft.spec.resources.nodes if draft.spec.resources else None) or 1


def next_nodes(draft: DecisionDraft, last: Attempt | None) -> int:
    """Nodes of the next attempt: fewer than wanted only after one that ended because there was no room for all.

    An attempt that starts for another reason tries the wanted number again.
    """
    most = wanted(draft)
    if _rules(draft) is None or last is None or last.placed_nodes is None:
        return most
    return max(1, min(most, last.placed_nodes))


def fewer(draft: DecisionDraft, pods: Pods, nodes: int) -> int | None:
    """With how many nodes to go on instead, if pods have been unschedulable for as long as the manifest waits.

    Only that counts: a queued pod has no such time. Looks again when it is due.
    """
    allowed = _rules(draft)
    if allowed is None:
        return None
    since = [
        pod.created if pod.unschedulable_since is None else pod.unschedulable_since
        for pod in pods.values()
        if pod.unschedulable and pod.started is None and not pod.ended and pod.deleted is None
    ]
    if not since or (target := with_room(draft, pods, nodes)) is None:
        return None
    left = min(since) + (allowed.wait_seconds or DEFAULT_WAIT_SECONDS) - draft.seen.now
    draft.look(left)
    return target if left <= 0 else None


def with_room(draft: DecisionDraft, pods: Pods, nodes: int) -> int | None:
    """Nodes that took a pod, at least as many as the manifest allows; None if no fewer are allowed."""
    allowed = _rules(draft)
    least = (allowed.min_nodes or 1) if allowed is not None else nodes
    placed = sum(bool(pod.node) for pod in pods.values())
    return max(least, min(placed, nodes - 1)) if least < nodes else None


def asks(seen: Observed, spec: LMFineTuneSpec, settings: OperatorSettings) -> tuple[int, PodRequirements] | None:
    """For how many more pods of a run to look for room now, and what each requires; None for none."""
    more = 0 if seen.run.deleting else _missing(DecisionDraft(seen, spec, settings, seen.status))
    if more <= 0:
        return None
    gpus = (spec.resources.gpus_per_node if spec.resources else None) or 0
    rules = settings.policy.for_namespace(seen.run.key.namespace)
    return more, manifest.requirements(spec, settings, rules, gpus)


def _missing(draft: DecisionDraft) -> int:
    """How many more nodes to look for now; 0 where a run has all that it wants, or it is not the time to look."""
    attempt, wait = newest_attempt(draft), draft.settings.retries.grow_seconds
    if attempt is None or not _squeezed(draft, attempt) or draft.spec.suspend:
        return 0
    checkpoint, now = draft.status.checkpoint, draft.seen.now
    saved = since(checkpoint.time if checkpoint is not None else None)
    fresh = abs(now - saved) <= FRESH_SECONDS and saved >= since(attempt.start_time) + wait
    return wanted(draft) - (attempt.nodes or 1) if fresh else 0


def grown(draft: DecisionDraft) -> int | None:
    """The wanted number of nodes, if the run is to be stopped now in order to take them."""
    more, room = _missing(draft), draft.seen.room
    return wanted(draft) if more > 0 and room is not None and room >= more else None


def _squeezed(draft: DecisionDraft, attempt: Attempt) -> bool:
    """Whether an attempt trains on fewer nodes than are wanted."""
    running = attempt.start_time is not None and attempt.end_time is None and attempt.placed_nodes is None
    return (
        running and attempt.stage == Stage.TRAIN and _rules(draft) is not None and (attempt.nodes or 1) < wanted(draft)
    )


def _rules(draft: DecisionDraft) -> Elastic | None:
    """``spec.resources.elastic``."""
    return draft.spec.resources.elastic if draft.spec.resources else None
