"""Checkpoints on their way to storage, beside training; and who is told when one has arrived."""

import shutil
from pathlib import Path
from types import TracebackType

from lmft_api.status import CheckpointStatus
from lmft_job.checkpoints import Checkpoint, CheckpointUploader, prune
from lmft_job.context import RunContext
from lmft_job.outcome import now
from lmft_job.storage import Store


class Uploads:
    """Sends finished checkpoint folders; leaving it waits for the one in flight, after a SIGTERM in bounded time."""

    def __init__(self, context: RunContext, store: Store, attempt: int) -> None:
        self._context = context
        self._store = store
        self._attempt = attempt
        keep = context.settings.checkpoint.keep
        self._uploader = CheckpointUploader(store, attempt, keep, context.observer.note, self._published)
        if grace := context.grace:
            # An upload that storage never ends must not cost the attempt its last word.
            context.interrupt.on_request(lambda: self._uploader.limit(grace.for_uploads))

    def submit(self, folder: Path, step: int) -> None:
        """Send one; waits for the one before, and raises its failure."""
        self._uploader.submit(folder, step)
        shutil.rmtree(folder)

    def check(self) -> None:
        """Raise the failure of an upload, if there was one."""
        self._uploader.check()

    def wait(self) -> None:
        """Until all are there; raises what failed."""
        self._uploader.wait()

    def keep_last(self) -> None:
        """After success only the newest stays."""
        self._uploader.wait()
        prune(self._store, 1, self._attempt)

    def _published(self, checkpoint: Checkpoint) -> None:
        self._context.progress.checkpoint = CheckpointStatus(step=checkpoint.step, uri=checkpoint.uri, time=now())
        self._context.observer.checkpoint(checkpoint.step)

    def __enter__(self) -> "Uploads":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._uploader.__exit__(kind, error, trace)
