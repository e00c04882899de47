"""Before anything is fetched: what is forbidden, what the folder already contains, and this attempt's number."""

from dataclasses import dataclass
from typing import Any

from lmft_api.spec import Parallelism
from lmft_api.spec.resolved import Settings
from lmft_api.wire.layout import ADAPTER, MANIFEST, MODEL, REPORT, STAGED
from lmft_api.wire.result import Result
from lmft_api.wire.run_file import Stage, same_spec
from lmft_job.adapters.quantize import require_nf4
from lmft_job.attempt import journal
from lmft_job.attempt.context import RunContext
from lmft_job.attempt.current import CurrentAttempt
from lmft_job.attempt.identity import RunIdentity, read_claim
from lmft_job.attempt.result import completed, stored_report
from lmft_job.errors import InvalidError, RefusedError
from lmft_job.hub.push import check_push
from lmft_job.models.device import Arithmetic, arithmetic_for, choose_device
from lmft_job.sharding.choose import undividable
from lmft_job.storage import Store
from lmft_job.training.user_code import load_user_code, refuse_forbidden_code


@dataclass(frozen=True)
class Start:
    """What an attempt starts with.

    Attributes:
        store: rooted at the run's folder.
        began: what the run started with, from an earlier attempt; None for a new run.
        attempt: this attempt.
        arithmetic: device and precision.
        trainer_class: Trainer, or the user's subclass.
        callbacks: the user's callbacks.
        rows: of an optimiser step of all processes; None where one trains, with its own batch and passes.
    """

    store: Store
    began: RunIdentity | None
    attempt: CurrentAttempt
    arithmetic: Arithmetic
    trainer_class: type[Any]
    callbacks: list[Any]
    rows: int | None = None


def check(context: RunContext) -> Start | Result:
    """Check what is forbidden, what exists already, and whether the result can be written at all.

    Returns:
        The result if the run is complete already.

    Raises:
        JobError: the run cannot start.
    """
    settings = context.settings
    refuse_forbidden_code(context.run, settings)
    if not context.in_pod:
        refuse_several_devices(settings)
    refuse_undividable(settings)
    store = context.run_store()
    store.probe_write()
    if done := finished_before(context, store):
        return done
    began = begun_before(context, store)
    check_push_right(context)
    # The prepare stage runs on CPUs, whatever trains on the data.
    gpus = 0 if context.run.stage == Stage.PREPARE else settings.gpus
    device = choose_device(gpus, required=context.in_pod, say=context.observer.note, world=context.world)
    trainer_class, callbacks = load_user_code(settings)
    arithmetic = arithmetic_for(settings, device)
    if settings.training.quantization is not None and not (context.run.stage == Stage.PREPARE and settings.gpus):
        require_nf4(device)
    return Start(store, began, begin_attempt(context, store), arithmetic, trainer_class, callbacks)


def refuse_several_devices(settings: Settings) -> None:
    """On a laptop a run is one process on one device.

    Raises:
        InvalidError: the manifest asks for more.
    """
    here = "or apply the manifest to a cluster, whose operator starts the processes of several"
    problems = [
        f"spec.resources.{field}: lmft run trains on {what}; set {fewest}, {here}"
        for field, number, what, fewest in (
            ("gpusPerNode", settings.gpus, "one GPU or the CPU", "0 or 1"),
            ("nodes", settings.nodes, "this machine alone", "1"),
        )
        if number > 1
    ]
    if problems:
        raise InvalidError(problems)


def refuse_undividable(settings: Settings) -> None:
    """What does not go with a model divided among several devices.

    Raises:
        InvalidError: the manifest wants both.
    """
    several = settings.nodes * max(1, settings.gpus) > 1
    if several and settings.training.parallelism == Parallelism.FSDP and (problems := undividable(settings)):
        raise InvalidError(problems)


def finished_before(context: RunContext, store: Store) -> Result | None:
    """The result of a run that is complete already; its report is written last.

    In a pod it is returned: a result lost with its pod is recovered this way. On a laptop a person asked for a run.

    Raises:
        InvalidError: on a laptop, if there is a run that must not be lost without --overwrite.
    """
    if context.overwrite:
        # Check the report first: a run without it is not complete.
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
    """What the run in this folder started with; None for a new one.

    Raises:
        InvalidError: the folder has a run of another spec.
    """
    began = read_claim(store)
    changed = began is not None and not same_spec(began.specHash, context.run.spec)
    if began is not None and changed and began.stage == context.run.stage == Stage.PREPARE:
        # Nothing has been trained: the manifest may have changed, and what was staged for the earlier one goes.
        staged = sorted((item.key for item in store.list(f"{STAGED}/")), key=lambda key: not key.endswith(MANIFEST))
        store.delete(staged)
        return None
    if changed:
        raise InvalidError(
            [
                f"metadata.name: {store.url('')} contains an unfinished run of another spec; choose another name, or "
                "use --overwrite"
            ]
        )
    return began


def check_push_right(context: RunContext) -> None:
    """Check with the hub whether the model may be pushed, if the manifest asks for it.

    Raises:
        RefusedError, UnavailableError: see :func:`lmft_job.hub.push.check_push`.
    """
    wanted = context.settings.output.push_to_hub
    if wanted is not None:
        check_push(
            wanted.repository, private=bool(wanted.private), token=context.hub_token(), paused=context.watchdog.paused
        )


def begin_attempt(context: RunContext, store: Store) -> CurrentAttempt:
    """Number of this attempt: from the operator in a cluster, counted on a laptop. Earlier attempts can now see it.

    Raises:
        InterruptedRunError: a later attempt has begun.
    """
    if not context.world.main:
        return CurrentAttempt(journal.Begun(context.run.attempt), {})  # rank 0 begins it, see stages/ranks/meet.py
    before = journal.begun(store)
    highest = max((attempt.number for attempt in before), default=0)
    number = context.run.attempt if context.in_pod else highest + 1
    context.progress.highest_attempt = max(number, highest)
    ours = journal.place(store, number, context.pod, before)
    journal.Fence(store, ours).require()
    if context.in_pod:
        journal.begin(store, ours)
    try:
        # Parts uploaded by a killed attempt cost money until somebody removes them.
        for folder in (*(attempt.folder for attempt in before), ADAPTER, MODEL, STAGED) if before else ():
            store.abort_incomplete(f"{folder}/")
    except RefusedError as error:
        context.observer.note(f"incomplete uploads of earlier attempts could not be listed: {error}")
    return CurrentAttempt(ours, journal.known_steps(store, before))
