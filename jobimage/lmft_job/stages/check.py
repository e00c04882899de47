"""Before anything is fetched: what is forbidden, what lies in the folder already, and which attempt this is."""

from dataclasses import dataclass
from typing import Any

from lmft_api.wire.layout import MODEL, REPORT, STAGED
from lmft_api.wire.result import Result
from lmft_api.wire.run_file import Stage, spec_hash
from lmft_job.attempt import journal
from lmft_job.attempt.context import RunContext
from lmft_job.attempt.current import CurrentAttempt
from lmft_job.attempt.identity import RunIdentity, read_claim
from lmft_job.attempt.result import completed, stored_report
from lmft_job.errors import InvalidError, RefusedError
from lmft_job.hub.push import check_push
from lmft_job.models.device import Arithmetic, arithmetic_for, choose_device
from lmft_job.storage import Store
from lmft_job.training.user_code import load_user_code, refuse_forbidden_code


@dataclass(frozen=True)
class Start:
    """What an attempt starts with.

    Attributes:
        store: of the run.
        began: what the run began with, in an attempt before; None for a new run.
        attempt: this one.
        arithmetic: device and precision.
        trainer_class: Trainer, or the user's subclass.
        callbacks: the user's.
    """

    store: Store
    began: RunIdentity | None
    attempt: CurrentAttempt
    arithmetic: Arithmetic
    trainer_class: type[Any]
    callbacks: list[Any]


def check(context: RunContext) -> Start | Result:
    """Look at what is forbidden, what is there already, and whether the result can be written at all.

    Returns:
        The result where the run is complete already.

    Raises:
        JobError: the run cannot start.
    """
    settings = context.settings
    refuse_forbidden_code(context.run, settings)
    store = context.run_store()
    store.probe_write()
    if done := finished_before(context, store):
        return done
    began = begun_before(context, store)
    check_push_right(context)
    # Data is prepared on CPUs, whatever trains on it.
    gpus = 0 if context.run.stage == Stage.PREPARE else settings.gpus
    device = choose_device(gpus, required=context.in_pod, say=context.observer.note)
    trainer_class, callbacks = load_user_code(settings)
    arithmetic = arithmetic_for(settings, device)
    return Start(store, began, begin_attempt(context, store), arithmetic, trainer_class, callbacks)


def finished_before(context: RunContext, store: Store) -> Result | None:
    """The result of a run that is complete already; its report is written last.

    In a pod that is the answer: a result lost with its pod is fetched again so. On a laptop a person asked for a run.

    Raises:
        InvalidError: on a laptop, when something is there that must not be lost without --overwrite.
    """
    if context.overwrite:
        # The report first: a run without it is not complete.
        keys = sorted((item.key for item in store.list("")), key=lambda key: (key != REPORT, key))
        store.delete(keys)
    report = stored_report(store)
    if report is not None and context.in_pod:
        return completed(report)
    if report is not None:
        raise InvalidError(
            [f"metadata.name: {store.url('')} contains a finished run; choose another name, or use --overwrite"]
        )
    return None


def begun_before(context: RunContext, store: Store) -> RunIdentity | None:
    """What the run in this folder began with; None for a new one.

    Raises:
        InvalidError: it is a run of another spec.
    """
    began = read_claim(store)
    if began is not None and began.specHash != spec_hash(context.run.spec):
        raise InvalidError(
            [
                f"metadata.name: {store.url('')} contains an unfinished run of another spec; choose another name, or "
                "use --overwrite"
            ]
        )
    return began


def check_push_right(context: RunContext) -> None:
    """Ask the hub whether the model may be pushed, where the manifest wants it.

    Raises:
        RefusedError, UnavailableError: see :func:`lmft_job.hub.push.check_push`.
    """
    wanted = context.settings.output.push_to_hub
    if wanted is not None:
        check_push(wanted.repository, private=bool(wanted.private), token=context.hub_token())


def begin_attempt(context: RunContext, store: Store) -> CurrentAttempt:
    """Number of this attempt: the operator's in a cluster, counted on a laptop. From now on earlier ones see it.

    Raises:
        InterruptedRunError: a later attempt has begun.
    """
    before = journal.begun(store)
    highest = max((attempt.number for attempt in before), default=0)
    number = context.run.attempt if context.in_pod else highest + 1
    context.progress.highest_attempt = max(number, highest)
    ours = journal.place(store, number, context.pod, before)
    journal.Fence(store, ours).require()
    if context.in_pod:
        journal.begin(store, ours)
    try:
        # Parts that a killed attempt had sent cost money until somebody removes them.
        for folder in (*(attempt.folder for attempt in before), MODEL, STAGED) if before else ():
            store.abort_incomplete(f"{folder}/")
    except RefusedError as error:
        context.observer.note(f"incomplete uploads of earlier attempts could not be listed: {error}")
    return CurrentAttempt(ours, journal.known_steps(store, before))
