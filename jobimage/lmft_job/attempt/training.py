"""What an attempt runs beside training: its journal, uploads, fence, and what needs less memory."""

import json
import shlex
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from lmft_api.spec import ReportTo
from lmft_api.spec.output import WANDB_URL
from lmft_api.wire.layout import METRICS
from lmft_job.attempt.context import RunContext
from lmft_job.attempt.current import CurrentAttempt
from lmft_job.attempt.journal import Fence, Journal
from lmft_job.attempt.uploads import NoUploads, Uploads
from lmft_job.observers.background import Followers
from lmft_job.observers.live_metrics import LiveMetrics
from lmft_job.sharding.share import WHOLE, Share
from lmft_job.storage import Store
from lmft_job.trackers.record import Record, read_record, store_record
from lmft_job.trackers.sender import Sender
from lmft_job.trackers.servers.keys import keys_in
from lmft_job.trackers.servers.mlflow import Mlflow
from lmft_job.trackers.servers.wandb import WeightsAndBiases
from lmft_job.trackers.tensorboard import TensorBoard
from lmft_job.trackers.tracker import RunCard
from lmft_job.training.acceleration.activation_checkpointing import checkpointable
from lmft_job.training.batch import Adjustment, Batch, Checkpointing, is_shortage, planned_batch, planned_checkpointing


class TrainingAttempt:
    """Enter it before the baseline is measured; leaving it waits for the upload in flight.

    Args:
        context: context of the run.
        store: rooted at the run's folder.
        attempt: this one.
        rows: of an optimiser step of all processes; None where one process trains, with its own batch and passes.
        share: part of the trained weights that this process stores, where they are divided.

    Attributes:
        uploads: takes checkpoints.
        fence: detects that a later attempt has begun.
        adjustment: the batch, and how earlier attempts arrived at it.
        metrics: what takes the lines of steps and evaluations: the file, and trackers; None in processes that store
            nothing.
    """

    def __init__(
        self,
        context: RunContext,
        store: Store,
        attempt: CurrentAttempt,
        rows: int | None = None,
        share: Share = WHOLE,
    ) -> None:
        training = context.settings.training
        planned = Batch(training.per_device_batch_size, training.gradient_accumulation_steps)
        found = Adjustment.load(store, planned, planned_checkpointing(training.gradient_checkpointing))
        if rows is not None:
            kept = found.checkpointing
            most, layers, offload = context.group.from_main(lambda: [found.batch.rows, kept.layers, kept.offload])
            batch = planned_batch(most, rows, context.world)
            found = replace(found, batch=batch, checkpointing=Checkpointing(layers, bool(offload)))
        self.adjustment = found
        context.progress.adjustments = list(found.notes)
        self.uploads = _uploads(context, store, attempt, share)
        self.fence = Fence(store, attempt.ours)
        self._senders: list[Sender] = []
        self.metrics = self._followers(context, store, attempt) if context.world.main else None
        self._context, self._store, self._journal = context, store, Journal(store, attempt.ours)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        if not self._context.world.alone:
            # A signal ends no process by itself: all of them hear of it, and stop at the same step.
            self._open.enter_context(self._context.interrupt.deferred())
        self._open.enter_context(self._journal)
        self._open.enter_context(self.uploads)
        if self.metrics is not None:
            self._open.enter_context(self.metrics)
        self._context.watchdog.steps_begin("measuring the model before training")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            return self._open.__exit__(kind, error, trace)
        finally:
            self._context.progress.unsent = [sender.unsent for sender in self._senders if sender.unsent]

    def _followers(self, context: RunContext, store: Store, attempt: CurrentAttempt) -> Followers:
        """``metrics.jsonl``, and the trackers of ``spec.reportTo``; each thread asks storage for itself."""
        self._senders = _senders(context, store, Fence(store, attempt.ours).require, attempt.number)
        return Followers([LiveMetrics(store, context.folder, Fence(store, attempt.ours).require), *self._senders])

    def beat(self, step: int) -> None:
        """Report progress to the watchdog and the journal."""
        self._journal.step = self._context.progress.step = max(self._journal.step, step)
        self._context.watchdog.beat(f"training, at step {step}")

    @contextmanager
    def adjusted_on_shortage(self, model: Any) -> Iterator[None]:
        """If the accelerator runs out of memory, store what needs less of it, and continue in a fresh process.

        Args:
            model: that is trained: its layers may be checkpointed, unless the manifest says no.

        Raises:
            AcceleratorMemoryError: nothing is left that needs less.
        """
        allowed = self._context.settings.training.gradient_checkpointing is not False
        layers = checkpointable(model) if allowed else 0
        try:
            yield
        except RuntimeError as error:
            if not is_shortage(error):
                raise
            wanted = self.adjustment.after_shortage(self._journal.step, layers)
            self.fence.require()
            smaller = wanted.save_first(self._context.shared_run_store())
            self._context.progress.adjustments = list(smaller.notes)
            self._context.observer.note(f"{smaller.notes[-1]}; continuing in a new process")
            self.uploads.wait()
            self._journal.write()
            self._context.restart()
            raise


def _uploads(context: RunContext, store: Store, attempt: CurrentAttempt, share: Share) -> Uploads | NoUploads:
    """What this process stores of checkpoints: all of them, its part, or nothing."""
    if context.world.main:
        return Uploads(context, store, attempt, share)
    if share.parts > 1 and share.writes:
        return Uploads(context, context.shared_run_store(), attempt, share)
    return NoUploads()


def _senders(context: RunContext, store: Store, require: Callable[[], None], attempt: int) -> list[Sender]:
    """To the trackers of ``spec.reportTo``."""
    wanted, say, senders = context.run.spec.report_to or ReportTo(), context.observer.note, list[Sender]()
    if wanted.tensor_board:
        later = f"all of it is in {store.url(METRICS)}"
        senders.append(Sender(TensorBoard(store, context.folder, attempt, require), say, later))
    if wanted.mlflow is None and wanted.wandb is None:
        return senders
    card, again = _card(context, store), f"lmft report-to {shlex.quote(store.url('').rstrip('/'))}"
    experiment = project = entity = None
    if wanted.mlflow is not None:
        experiment = wanted.mlflow.experiment or context.run.namespace
        keys = keys_in(context.secret("mlflow"), in_pod=context.in_pod)
        mlflow = Mlflow(wanted.mlflow.uri, experiment, card, keys)
        senders.append(Sender(mlflow, say, f"send it with: {again} --mlflow {wanted.mlflow.uri}"))
    if wanted.wandb is not None:
        project, entity = wanted.wandb.project or context.run.namespace, wanted.wandb.entity
        keys = keys_in(context.secret("wandb"), in_pod=context.in_pod)
        wandb = WeightsAndBiases(wanted.wandb, card, keys, project)
        senders.append(Sender(wandb, say, f"send it with: {again} --wandb {wanted.wandb.url or WANDB_URL}"))
    store_record(store, Record(card, experiment, project, entity))
    return senders


def _card(context: RunContext, store: Store) -> RunCard:
    """What trackers show of the run: its settings without texts of its data, and where its files are."""
    known = None if context.in_pod else read_record(store)
    flat = {name: value for name, value in context.settings.flat().items() if not name.startswith("sample.")}
    return RunCard(
        id=context.run.uid if context.in_pod else known.card.id if known else str(uuid.uuid4()),
        name=context.run.name,
        params={name: _shown(value, context.scrubber.scrub) for name, value in flat.items()},
        tags={"lmfinetune.dev/namespace": context.run.namespace, "lmfinetune.dev/folder": store.url("")},
    )


def _shown(value: Any, scrub: Callable[[str], str]) -> str | int | float | bool | None:
    if value is None or isinstance(value, int | float):
        return value
    return scrub(value if isinstance(value, str) else json.dumps(value))
