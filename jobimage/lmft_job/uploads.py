"""Checkpoints on their way to storage, beside training; and who is told when one has arrived."""

import shutil
from pathlib import Path
from types import TracebackType

from lmft_api.status import CheckpointStatus
from lmft_job.checkpoints import Checkpoint, CheckpointUploader, prune
from lmft_job.context import RunContext
from lmft_job.errors import JobError
from lmft_job.outcome import now
from lmft_job.storage import Store


class Uploads:
    """Sends finished checkpoint folders; leaving it waits for the one in flight."""

    def __init__(self, context: RunContext, store: Store, attempt: int) -> None:
        self._context = context
        self._store = store
        self._uploader = CheckpointUploader(
            store, attempt, keep=context.settings.checkpoint.keep, arrived=self._arrived
        )

    def submit(self, folder: Path, step: int) -> None:
        """Send one; waits for the one before, and raises its failure."""
        self._uploader.submit(folder, step)
        shutil.rmtree(folder)

    def wait(self) -> None:
        """Until all are there; raises what failed."""
        self._uploader.wait()

    def keep_last(self) -> None:
        """After success only the newest stays."""
        self._uploader.wait()
        prune(self._store, keep=1)

    def _arrived(self, checkpoint: Checkpoint) -> None:
        self._context.progress.checkpoint = CheckpointStatus(step=checkpoint.step, uri=checkpoint.uri, time=now())
        self._context.observer.checkpoint(checkpoint.step)

    def __enter__(self) -> "Uploads":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._uploader.wait()
        except JobError:
            # What ended the run comes first; a failed upload would only hide it.
            if error is None:
                raise
