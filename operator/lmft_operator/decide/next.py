"""What follows when no attempt is open: the next one, a wait, or the end of the run."""

from itertools import takewhile

from lmft_api.reasons import FAILURES, PEERS, Phase, Reason
from lmft_api.spec import Preparation
from lmft_api.status import MAX_ATTEMPTS_KEPT, MOST, Attempt
from lmft_api.text.wording import sentence
from lmft_api.wire.run_file import Stage, spec_hash
from lmft_operator.decide import elastic, waiting
from lmft_operator.decide.attempt import MAX_ADOPTED, listed, settle_provenance
from lmft_operator.decide.draft import DecisionDraft, grace, max_retries, since, superseded, time_is_up, time_left
from lmft_operator.domain.plan import Plan
from lmft_operator.jobs import manifest, policy
from lmft_operator.status import edit
from lmft_operator.status.change import change
from lmft_operator.status.messages import linked

MAX_UNREAD = 3
"""Most attempts in a row that may succeed without leaving a result."""
FREE_INTERRUPTIONS = 3
"""Interruptions in a row without a new checkpoint that are retried at once; further ones wait for a back-off."""

QUEUE_SECONDS = 5.0
"""How long a queued run waits before it queues again: Kueue looks at those that wait a second after places are free."""

NOT_COUNTED = frozenset({Reason.INTERRUPTED, Reason.SUSPENDED, Reason.DEADLINE_EXCEEDED, Reason.COMPLETED})


def next_attempt(draft: DecisionDraft, last: Attempt | None, problems: tuple[str, ...]) -> None:
    """No attempt is open: start the next one, wait for something, or give up."""
    if again := superseded(draft):
        # What came of the manifest as it was does not count for what it is now.
        draft.status = change(draft.status, provenance=None, failures=None)
    if last is not None and not again and _given_up(draft, last):
        return
    if problems:
        draft.end(Reason.INVALID_SPEC, "; ".join(problems))
        return
    if draft.spec.suspend:
        draft.wait(Reason.SUSPENDED, "spec.suspend is true; set it to false to resume.", Phase.SUSPENDED)
        return
    left = time_left(draft)
    if left is not None and left <= 0:
        draft.give_up(Reason.DEADLINE_EXCEEDED, time_is_up(draft))
        return
    if last is not None and _must_wait(draft, last):
        return
    model_uri = _resume_model(draft)
    if draft.status.ended or (draft.spec.resume_from is not None and model_uri is None):
        return
    plan = _plan(draft, last, model_uri)
    draft.create = plan
    prepares = spec_hash(draft.spec) if plan.stage == Stage.PREPARE else None
    attempt = listed(draft, plan.attempt, plan.name, plan.stage, prepares, nodes=plan.nodes)
    draft.status = edit.with_attempt(draft.status, attempt)
    settle_provenance(draft)
    if model_uri is not None and draft.status.provenance is not None:
        provenance = change(draft.status.provenance, resumed_from=model_uri)
        draft.status = change(draft.status, provenance=provenance)
    said = None if draft.seen.jobs else draft.seen.status.succeeded
    wait = waiting.still_refused(said) or waiting.at_creation(
        plan.attempt, queued=manifest.queued(draft.spec, draft.settings)
    )
    draft.wait(wait.reason, wait.message)


def _given_up(draft: DecisionDraft, last: Attempt) -> bool:
    """Whether the limit on failures, idle interruptions or lost results is reached; ends the run if so."""
    failures, retries = draft.status.failures or 0, max_retries(draft)
    words = f"{last.reason}: {last.message}" if last.message else str(last.reason)
    if failures > retries and last.reason not in NOT_COUNTED:
        if retries == 0 and last.reason in FAILURES:
            draft.end(Reason(str(last.reason)), last.message or "")
        else:
            text = f"{failures} attempts failed, spec.maxRetries is {retries}. The last one: {words}"
            draft.give_up(Reason.RETRIES_EXHAUSTED, text)
        return True
    idle = _idle_interruptions(draft)
    if idle > _most_idle(draft):
        text = f"Interrupted {idle} times in a row without a new checkpoint. The last time: {words}"
        draft.give_up(Reason.RETRIES_EXHAUSTED, text)
        return True
    if _trailing_unread(draft) >= MAX_UNREAD:
        text = (
            f"{MAX_UNREAD} attempts in a row left no result that can be read; is the image built from "
            f"LMFineTune's? The last one: {last.message}"
        )
        draft.give_up(Reason.INTERNAL_ERROR, text)
        return True
    return False


def _must_wait(draft: DecisionDraft, last: Attempt) -> bool:
    """Whether the next attempt is not due yet: an old pod is still ending, or a back-off has not passed."""
    seen = draft.seen
    reason = Reason(str(last.reason)) if last.reason in {Reason.INTERRUPTED, *PEERS} else Reason.RETRYING
    delay = max(_delay(draft, last), _queue_delay(draft, last))
    left = since(last.end_time) + delay - seen.now
    waits = _pods_to_end(draft, last)
    if left <= 0 and not waits:
        return False
    words = sentence(f"Attempt {last.number} ended with {last.reason}" + (f": {last.message}" if last.message else ""))
    cause = Reason(str(last.reason)) if last.reason in Reason.__members__.values() else reason
    if left > 0:
        waits = f"Retrying after {delay:.0f} s."
        draft.look(left)
    draft.wait(reason, linked(draft.settings, cause, f"{words} {waits}"))
    return True


def _delay(draft: DecisionDraft, last: Attempt) -> float:
    """Seconds from the end of an attempt to the start of the next one."""
    if superseded(draft):
        return 0.0
    if last.reason == Reason.INTERRUPTED:
        if rejected(last):
            return _backoff(draft, _rejections(draft))
        idle = _idle_interruptions(draft) - FREE_INTERRUPTIONS
        return _backoff(draft, idle) if idle > 0 else 0.0
    if last.reason in NOT_COUNTED:
        return 0.0
    alone = len(list(takewhile(lambda attempt: attempt.reason in PEERS, reversed(draft.status.attempts or []))))
    return _backoff(draft, max(draft.status.failures or 1, alone))


def _queue_delay(draft: DecisionDraft, last: Attempt) -> float:
    """Seconds for which a run that gave places back leaves them to those that wait in the queue.

    A Job that is there when the places become free would get them before older ones.
    """
    gave_way = last.reason in {Reason.INTERRUPTED, *PEERS}
    return QUEUE_SECONDS if gave_way and manifest.queued(draft.spec, draft.settings) else 0.0


def _pods_to_end(draft: DecisionDraft, last: Attempt) -> str:
    """Message naming the old pod that has to end before the next attempt begins; empty when there is none.

    The pod may be uploading its checkpoint, or hold the GPU that the next one needs.
    """
    seen, margin = draft.seen, draft.settings.retries.pod_end_margin_seconds
    for pod in seen.pods:
        if pod.over:
            continue
        kept = f", which {pod.running_others} keeps up," if pod.ended and pod.running_others else ""
        if pod.deleted is None:
            draft.look(margin)
            if since(last.end_time) + grace(draft) + margin > seen.now:
                return f"Waiting for pod {pod.name}{kept} to be stopped."
            continue
        # deletionTimestamp is when its grace period ends.
        left = pod.deleted + margin - seen.now
        if left > 0:
            draft.look(left)
            return f"Waiting for pod {pod.name}{kept} to end."
    return ""


def _resume_model(draft: DecisionDraft) -> str | None:
    """Model or checkpoint of the run that spec.resumeFrom names; sets the message while there is none."""
    wanted, source, provenance = draft.spec.resume_from, draft.seen.source, draft.status.provenance
    if wanted is None:
        return None
    if provenance is not None and provenance.resumed_from is not None:
        # Fixed by the first attempt, since the other run may be deleted by now; the policy may have changed since.
        return _admitted(draft, provenance.resumed_from)
    name = f'LMFineTune "{wanted.name}" (spec.resumeFrom)'
    if source is not None and source.circle:
        words = f"these runs wait for each other: {circle(source.circle)}; remove spec.resumeFrom from one of them"
        draft.end(Reason.INVALID_SPEC, f"spec.resumeFrom.name: {words}")
        return None
    if source is None or not source.exists:
        draft.wait(Reason.PENDING, f"Waiting for {name}, which does not exist in this namespace.")
    elif not source.ended:
        draft.wait(Reason.PENDING, f"Waiting for {name} to end.")
    elif source.uri is None:
        words = f"{name} has ended with neither a model nor a checkpoint; choose another run"
        draft.end(Reason.INVALID_SPEC, f"spec.resumeFrom.name: {words}")
    else:
        return _admitted(draft, source.uri)
    return None


def circle(names: tuple[str, ...]) -> str:
    """Names of the runs in a cycle; those in the middle of a long one are left out."""
    shown = names if len(names) <= 8 else (*names[:4], f"({len(names) - 8} more)", *names[-4:])
    return " → ".join((*shown, names[0]))


def _admitted(draft: DecisionDraft, address: str) -> str | None:
    """The address to start from, if policy allows the manifest to name it; ends the run if not."""
    refused = policy.unreadable(address, draft.spec, draft.settings, draft.seen.run.key.namespace)
    if refused:
        draft.end(Reason.INVALID_SPEC, "; ".join(map(str, refused)))
    return None if refused else address


def _plan(draft: DecisionDraft, last: Attempt | None, model_uri: str | None) -> Plan:
    seen = draft.seen
    numbers = [number for a in draft.status.attempts or () for number in (a.number, a.highest_attempt or 0)]
    # Labels may be forged. If a Job is overlooked, the API server reports that its name is taken.
    labelled = [*(job.attempt for job in seen.jobs), *(pod.attempt for pod in seen.pods)]
    highest = max([0, *numbers, *(attempt for attempt in labelled if attempt <= MAX_ADOPTED)])
    number = min(highest + 1, MOST)
    gpus = (draft.spec.resources.gpus_per_node if draft.spec.resources else None) or 0
    trained = any(a.stage == Stage.TRAIN for a in draft.status.attempts or ())
    prepared = trained or (
        last is not None and last.stage == Stage.PREPARE and last.reason == Reason.COMPLETED and not superseded(draft)
    )
    nodes = elastic.next_nodes(draft, last)
    # Several pods would prepare the same several times: one does it for all. An image with an entry of its own may have
    # nothing to prepare, and says so.
    preparation = draft.spec.preparation or Preparation.AUTO
    inline = preparation == Preparation.INLINE and (elastic.wanted(draft) == 1 or _own_image(draft))
    separate = (
        trained or preparation == Preparation.SEPARATE or (not inline and (elastic.wanted(draft) > 1 or gpus > 0))
    )
    stage = Stage.ALL if not separate else Stage.TRAIN if prepared else Stage.PREPARE
    if stage == Stage.PREPARE or (last is not None and _unread(last)):
        gpus, nodes = 0, 1  # nothing to compute: preparing needs no GPU, and a finished run answers from its report
    name = manifest.job_name(seen.run.key.name, number, stage, nodes=nodes)
    return Plan(name, number, stage, gpus, model_uri, nodes)


def _own_image(draft: DecisionDraft) -> bool:
    return draft.spec.pod_template is not None and draft.spec.pod_template.image is not None


def _unread(attempt: Attempt) -> bool:
    return attempt.reason == Reason.COMPLETED and attempt.stage != Stage.PREPARE


def _trailing_unread(draft: DecisionDraft) -> int:
    count = 0
    for attempt in reversed(draft.status.attempts or ()):
        if not _unread(attempt):
            break
        count += 1
    return count


def _most_idle(draft: DecisionDraft) -> int:
    """Most interruptions in a row without a newer checkpoint: the platform's limit, or what the run asks for.

    At most as many as the status keeps attempts.
    """
    return max(draft.settings.retries.max_idle_interruptions, min(draft.spec.max_retries or 0, MAX_ATTEMPTS_KEPT - 1))


def rejected(attempt: Attempt) -> bool:
    """Whether kubelet rejected the pod although the scheduler had assigned it to the node."""
    return attempt.cause is not None and attempt.start_time is None


def _rejections(draft: DecisionDraft) -> int:
    """How many attempts in a row, up to the newest, were rejected."""
    return len(list(takewhile(rejected, reversed(draft.status.attempts or []))))


def _idle_interruptions(draft: DecisionDraft) -> int:
    """Interruptions in a row, up to the newest, without a newer checkpoint in between.

    Rejections by kubelet do not count: the run did nothing, and waits for the cluster as it would for a free node. Nor
    does an attempt that was stopped because there was no room for all of its pods.
    """
    attempts = [a for a in draft.status.attempts or () if not rejected(a) and a.placed_nodes is None]
    count = 0
    for attempt in reversed(attempts):
        if attempt.reason != Reason.INTERRUPTED or attempt.checkpoint_step != attempts[-1].checkpoint_step:
            break
        count += 1
    return count


def _backoff(draft: DecisionDraft, count: int) -> float:
    retries = draft.settings.retries
    return min(retries.max_seconds, retries.initial_seconds * 2.0 ** min(max(count - 1, 0), 30))
