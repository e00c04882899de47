"""Uploads of a run's checkpoints, and the notification when one is complete."""

import shutil
from collections.abc import Callable
from pathlib import Path

from typing_extensions import override

from lmft_api.status import CheckpointStatus
from lmft_api.text.times import now
from lmft_job.attempt.context import RunContext
from lmft_job.attempt.current import CurrentAttempt
from lmft_job.checkpoints import Checkpoint, CheckpointUploader, prune
from lmft_job.sharding.share import WHOLE, Share
from lmft_job.storage import Store


class NoUploads:
    """Stands for the uploads in a process that stores no checkpoints."""

    def __enter__(self) -> "NoUploads":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def submit(self, folder: Path, step: int, into: str = "", finish: Callable[[Path], None] | None = None) -> None:
        """Nothing is stored."""

    def check(self) -> None:
        """Nothing can have failed."""

    def wait(self) -> None:
        """There is nothing to wait for."""

    def keep_last(self) -> None:
        """There is nothing to remove."""


class Uploads(CheckpointUploader):
    """Takes finished checkpoint folders; leaving it waits for the one in flight, after a SIGTERM in bounded time.

    Args:
        context: context of the attempt.
        store: rooted at the run's folder.
        attempt: the one that stores them.
        share: of this process, where several store a checkpoint together.
    """

    def __init__(self, context: RunContext, store: Store, attempt: CurrentAttempt, share: Share = WHOLE) -> None:
        def published(checkpoint: Checkpoint) -> None:
            context.progress.checkpoint = CheckpointStatus(step=checkpoint.step, uri=checkpoint.uri, time=now())
            context.observer.checkpoint(checkpoint.step)

        super().__init__(
            store,
            attempt.number,
            context.settings.checkpoint.keep,
            context.observer.note,
            published,
            context.watchdog.beat,
            attempt.passed_over,
            attempt.ours.pod,
            share.part,
            share.parts,
        )
        if grace := context.grace:
            # An upload that storage never finishes must not keep the attempt from writing its result.
            context.interrupt.on_request(lambda: self.limit(grace.for_uploads))

    @override
    def submit(self, folder: Path, step: int, into: str = "", finish: Callable[[Path], None] | None = None) -> None:
        """Upload a folder and remove it; waits for the previous upload, and raises its failure."""
        super().submit(folder, step, into, finish)
        shutil.rmtree(folder)

    def keep_last(self) -> None:
        """Remove all but the newest checkpoint, after success."""
        self.wait()
        prune(self._store, 1, self._attempt, self._passed_over)
