"""What to do about one run: a pure function from what is observed to a wanted Job, a status and the next look.

Level-triggered: the decision depends on the observation alone, so that repeating it, late or after a restart, gives the
same result. One attempt is open at a time (:mod:`attempt`); what follows its end is decided in :mod:`next`.
"""

from lmft_api.reasons import PEERS, Reason
from lmft_api.spec import LMFineTuneSpec
from lmft_api.status import Attempt, LMFineTuneStatus
from lmft_operator.decide.attempt import adopt, clear_outdated, follow, release
from lmft_operator.decide.draft import (
    Decision,
    DecisionDraft,
    max_retries,
    newest_attempt,
    only_prepared,
    since,
    superseded,
    time_left,
)
from lmft_operator.decide.next import next_attempt
from lmft_operator.domain.facts import Observed
from lmft_operator.settings import OperatorSettings
from lmft_operator.status import edit
from lmft_operator.status.change import change

RESUMABLE = frozenset(
    {Reason.INTERRUPTED, Reason.OUT_OF_MEMORY, Reason.STORAGE_UNAVAILABLE, Reason.HUNG, Reason.INTERNAL_ERROR}
    | {Reason.ACCELERATOR_MISSING, Reason.DEADLINE_EXCEEDED, *PEERS}
)


def decide(seen: Observed, spec: LMFineTuneSpec, problems: tuple[str, ...], settings: OperatorSettings) -> Decision:
    """The decision about one run.

    Args:
        seen: what is observed.
        spec: with the platform's defaults filled in; the readable parts of it if not all of it can be read.
        problems: everything wrong with the manifest or refused by policy.
        settings: the operator's settings.
    """
    before = seen.status
    if seen.run.deleting:
        # Somebody's finalizer keeps it, and until it is removed its Jobs are not garbage-collected.
        jobs = () if seen.run.orphans else (job.name for job in seen.jobs if not (job.finished or job.deleting))
        return Decision(before, delete_jobs=tuple(jobs))
    draft = DecisionDraft(seen, spec, settings, edit.with_what_is_new(before))
    if before.ended:
        left = _time_to_live(draft, before)
        if left is not None and left <= 0:
            return Decision(before, delete_run=True)
        if not _revived(draft, problems):
            return _after_the_end(draft, before)
        draft.wait(Reason.PENDING, "The run continues.")
    attempt = newest_attempt(draft)
    if attempt is None and problems and not seen.jobs:
        return _invalid(DecisionDraft(seen, spec, settings, before), problems)
    # Once an attempt trains the spec is fixed: the column keeps its value if this version cannot read the model.
    model = (None if only_prepared(before) else before.model) or edit.model_column(spec)
    draft.status = change(draft.status, completion_time=None, model=model)
    if attempt is None and clear_outdated(draft):
        return draft.decision()
    # Usually one round; more when a crash came between creating the Job of an attempt and listing it in the status.
    while attempt is not None or (attempt := adopt(draft, 0)) is not None:
        if attempt.end_time is None:
            attempt = follow(draft, attempt)
        if attempt.end_time is None or draft.status.ended:
            release(draft)
            return draft.decision()
        if (following := adopt(draft, attempt.number)) is None:
            break
        attempt = following
    release(draft)
    if only_prepared(draft.status) and clear_outdated(draft):
        return draft.decision()
    next_attempt(draft, attempt, problems)
    if before.ended and _same_end(before, draft.status):
        return _after_the_end(draft, before)  # decided again with the same result: its end and its times stay
    return draft.decision()


def _same_end(before: LMFineTuneStatus, after: LMFineTuneStatus) -> bool:
    old, new = before.succeeded, after.succeeded
    return old is not None and new is not None and (old.reason, old.message) == (new.reason, new.message)


def _invalid(draft: DecisionDraft, problems: tuple[str, ...]) -> Decision:
    """Nothing can be started; checked again each time, so that fixing the manifest or the policy is enough."""
    draft.end(Reason.INVALID_SPEC, "; ".join(problems))
    draft.look(_time_to_live(draft, draft.status))
    return draft.decision()


def _time_to_live(draft: DecisionDraft, ended: LMFineTuneStatus) -> float | None:
    """Seconds until spec.ttlSecondsAfterFinished has passed; None without it, or before the end."""
    ttl, when = draft.spec.ttl_seconds_after_finished, ended.completion_time
    return None if ttl is None or when is None else since(when) + ttl - draft.seen.now


def _revived(draft: DecisionDraft, problems: tuple[str, ...]) -> bool:
    """Whether an ended run resumes: it was fixed before its first attempt, or given more retries or time."""
    before, run = draft.status, draft.seen.run
    last = newest_attempt(draft)
    if before.reason == Reason.INVALID_SPEC and (last is None or _refused_before(before, last)):
        return True
    if before.reason != Reason.COMPLETED and superseded(draft):
        return True
    if problems or before.observed_generation == run.generation or before.reason == Reason.COMPLETED:
        return False
    if last is None or last.reason not in RESUMABLE:
        return False
    left = time_left(draft)
    return (before.failures or 0) <= max_retries(draft) and (left is None or left > 0)


def _refused_before(before: LMFineTuneStatus, last: Attempt) -> bool:
    """Whether a changed manifest was refused before it was prepared, and not by its preparation."""
    return only_prepared(before) and last.reason != Reason.INVALID_SPEC


def _after_the_end(draft: DecisionDraft, before: LMFineTuneStatus) -> Decision:
    seen = draft.seen
    after = edit.with_what_is_new(before)
    if before.observed_generation != seen.run.generation:
        after = change(after, observed_generation=seen.run.generation)
    # A Job whose pod has ended is about to be closed by its controller; deleting it would delete the log too.
    done = {pod.attempt for pod in seen.pods if pod.ended and not pod.gone}
    live = [job.name for job in seen.jobs if not (job.finished or job.deleting or job.attempt in done)]
    draft.look(_time_to_live(draft, before))
    release(draft)
    names = tuple(dict.fromkeys([*live, *draft.delete]))
    return Decision(after, delete_jobs=names, look_again=min(draft.looks, default=None))
