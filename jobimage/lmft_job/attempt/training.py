"""What an attempt runs beside training: its journal, uploads, fence, and what needs less memory."""

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from lmft_api.spec import ReportTo
from lmft_api.wire.layout import METRICS, TRACKED_AS
from lmft_job.attempt.context import RunContext
from lmft_job.attempt.current import CurrentAttempt
from lmft_job.attempt.journal import Fence, Journal
from lmft_job.attempt.uploads import NoUploads, Uploads
from lmft_job.observers.background import Followers
from lmft_job.observers.live_metrics import LiveMetrics
from lmft_job.sharding.share import WHOLE, Share
from lmft_job.storage import Store
from lmft_job.storage.notes import read_note
from lmft_job.trackers.keys import keys_in
from lmft_job.trackers.mlflow import Mlflow
from lmft_job.trackers.sender import Sender
from lmft_job.trackers.tensorboard import TensorBoard
from lmft_job.trackers.tracker import RunCard, Tracker
from lmft_job.trackers.wandb import WeightsAndBiases
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
        self.metrics = _followers(context, store, attempt) if context.world.main else None
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
        return self._open.__exit__(kind, error, trace)

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


def _followers(context: RunContext, store: Store, attempt: CurrentAttempt) -> Followers:
    """``metrics.jsonl``, and the trackers of ``spec.reportTo``."""

    def require() -> Callable[[], None]:
        # Each thread asks storage for itself.
        return Fence(store, attempt.ours).require

    wanted, trackers = context.run.spec.report_to or ReportTo(), list[Tracker]()
    if wanted.tensor_board:
        trackers.append(TensorBoard(store, context.folder, attempt.number, require()))
    if wanted.mlflow is not None:
        experiment = wanted.mlflow.experiment or context.run.namespace
        keys = keys_in(context.secret("mlflow"), in_pod=context.in_pod)
        trackers.append(Mlflow(wanted.mlflow.uri, experiment, _card(context, store), keys))
    if wanted.wandb is not None:
        keys = keys_in(context.secret("wandb"), in_pod=context.in_pod)
        trackers.append(WeightsAndBiases(wanted.wandb, _card(context, store), keys, context.run.namespace))
    later = f"all of it is in {store.url(METRICS)}"
    senders = [Sender(tracker, context.observer.note, later) for tracker in trackers]
    return Followers([LiveMetrics(store, context.folder, require()), *senders])


def _card(context: RunContext, store: Store) -> RunCard:
    """What trackers show of the run: its settings without texts of its data, and where its files are."""
    if context.in_pod:
        identity = context.run.uid
    else:
        fresh = str(uuid.uuid4())
        store.put_if_absent(TRACKED_AS, json.dumps({"id": fresh}).encode())
        identity = read_note(store, TRACKED_AS, lambda note: str(uuid.UUID(note["id"]))) or fresh
    flat = {name: value for name, value in context.settings.flat().items() if not name.startswith("sample.")}
    return RunCard(
        id=identity,
        name=context.run.name,
        params={name: _shown(value, context.scrubber.scrub) for name, value in flat.items()},
        tags={"lmfinetune.dev/namespace": context.run.namespace, "lmfinetune.dev/folder": store.url("")},
    )


def _shown(value: Any, scrub: Callable[[str], str]) -> str | int | float | bool | None:
    if value is None or isinstance(value, int | float):
        return value
    return scrub(value if isinstance(value, str) else json.dumps(value))
