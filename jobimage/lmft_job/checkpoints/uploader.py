"""Uploads of checkpoints beside training: one in flight, no failure lost, none longer than the grace period."""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from lmft_api.wire.layout import checkpoint_folder
from lmft_job.checkpoints.parts import PartOf, publish_parts, put_part
from lmft_job.checkpoints.protocol import Checkpoint, Say, make_way, prune, publish
from lmft_job.errors import InterruptedRunError, JobError, UnavailableError
from lmft_job.storage import Store, disk_error, link_or_copy

_POLL_SECONDS = 0.1


class CheckpointUploader:
    """Publishes checkpoints beside training: one upload in flight, old ones pruned after each.

    A failure is never lost: it is raised by the next ``submit``, ``check``, ``wait``, or by leaving the ``with`` block.

    Args:
        store: rooted at the run's folder.
        attempt: our attempt; we write in its folder only.
        keep: how many complete checkpoints stay.
        say: called with messages for people, in the upload's thread.
        published: called in the upload's thread with each checkpoint that is complete.
        moved: called while waiting for an upload, as long as it makes progress.
        passed_over: folders of checkpoints found damaged, see :func:`prune`.
        pod: UID of our pod, where it is known; of the first, where several store a checkpoint together.
        index: number of the part that this process stores, from 0.
        count: how many processes store a checkpoint together. Only the first completes it and removes old ones.
    """

    def __init__(
        self,
        store: Store,
        attempt: int,
        keep: int,
        say: Say,
        published: Callable[[Checkpoint], None] = lambda checkpoint: None,
        moved: Callable[[], None] = lambda: None,
        passed_over: set[str] | None = None,
        pod: str = "",
        index: int = 0,
        count: int = 1,
    ) -> None:
        self.newest: Checkpoint | None = None
        self._store = store
        self._attempt = attempt
        self._keep = keep
        self._say = say
        self._published = published
        self._moved = moved
        self._passed_over = set() if passed_over is None else passed_over
        self._pod, self._index, self._count = pod, index, count
        self._moves = 0
        self._thread: threading.Thread | None = None
        self._step = 0
        self._failure: BaseException | None = None
        self._deadline: float | None = None
        self._stop = threading.Event()

    def __enter__(self) -> "CheckpointUploader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.wait()
            return
        # The block's own error takes precedence; the upload still finishes if it can, and its failure is reported too.
        try:
            self.wait()
        except JobError as failure:
            error.add_note(f"The checkpoint upload failed too: {failure}")
            self._say(str(failure))

    def submit(self, folder: Path, step: int, into: str = "", finish: Callable[[Path], None] | None = None) -> None:
        """Publishes a checkpoint folder in the background, after the previous upload.

        The folder's files are hard-linked first, so the caller may remove it at once.

        Args:
            folder: with the files.
            step: optimizer steps done.
            into: name of the folder that all processes put their parts into; empty if this one has the whole.
            finish: writes the rest of the files into the folder it is given, in the upload's thread.

        Raises:
            JobError: the failure of the previous upload.
            InterruptedRunError: the time set by ``limit`` is over.
        """
        self.wait()
        try:
            snapshot = _snapshot(folder)
        except OSError as error:
            raise disk_error(error, folder) from error
        self._step = step
        self._thread = threading.Thread(
            target=self._upload, args=(snapshot, step, into, finish), name=f"checkpoint-{step}", daemon=True
        )
        self._thread.start()

    def check(self) -> None:
        """Raises the failure of an upload that has ended; cheap enough to call at every step."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def wait(self) -> Checkpoint | None:
        """Waits for the upload in flight and returns the newest checkpoint that this attempt has published.

        Raises:
            JobError: the upload's failure.
            InterruptedRunError: the time set by ``limit`` is over; the upload is abandoned, what it has sent is removed
                or ignored, and the previous checkpoint stays the newest.
        """
        thread, seen = self._thread, self._moves
        while thread is not None and thread.is_alive():
            left = float("inf") if self._deadline is None else self._deadline - time.monotonic()
            if left <= 0:
                self._stop.set()
                raise InterruptedRunError(self._abandoned())
            thread.join(min(_POLL_SECONDS, left))
            if seen != self._moves:
                # An upload that hangs reports no progress, so the watchdog can notice.
                seen = self._moves
                self._moved()
        self._thread = None
        self.check()
        return self.newest

    def limit(self, seconds: float) -> None:
        """Limits all waiting from now on, current waits included, to this time in all. For a signal handler."""
        self._deadline = time.monotonic() + seconds

    def _upload(self, snapshot: Path, step: int, into: str, finish: Callable[[Path], None] | None) -> None:
        try:
            if finish is not None:
                finish(snapshot)
                self._on_its_way()
            self.newest = self._publish(snapshot, step, into)
        except JobError as error:
            self._failure = _with_what_is_kept(error, step, self.newest)
            return
        except BaseException as error:  # noqa: BLE001 - raised again in the training thread, by check()
            self._failure = error
            return
        finally:
            shutil.rmtree(snapshot, ignore_errors=True)
        if self.newest is None:
            return
        try:
            self._published(self.newest)
            prune(self._store, self._keep, self._attempt, self._passed_over)
        except JobError as error:
            # The checkpoint is stored, which is what matters; the next prune finds the same old ones again.
            self._say(f"checkpoint {step} is stored, but not everything old could be removed: {error}")
        except BaseException as error:  # noqa: BLE001 - as above
            self._failure = error

    def _publish(self, snapshot: Path, step: int, into: str) -> Checkpoint | None:
        """Store the files; the checkpoint that they complete, which is for the first process to say."""
        if not into:
            return publish(self._store, snapshot, self._attempt, step, self._on_its_way, self._pod, self._passed_over)
        where = (self._store, snapshot, self._attempt, step, self._pod, PartOf(self._index, self._count, into))
        if self._index == 0:
            make_way(self._store, checkpoint_folder(self._attempt, step, self._pod), self._passed_over)
            return publish_parts(*where, self._on_its_way, self._require_time)
        put_part(*where, self._on_its_way)
        return None

    def _on_its_way(self) -> None:
        self._moves += 1
        self._require_time()

    def _require_time(self) -> None:
        if self._stop.is_set():
            raise InterruptedRunError(self._abandoned())

    def _abandoned(self) -> str:
        kept = f"step {self.newest.step} is the newest in storage" if self.newest else "this attempt has stored none"
        return f"the upload of checkpoint {self._step} did not end within the grace period; {kept}"


def _with_what_is_kept(error: JobError, step: int, newest: Checkpoint | None) -> JobError:
    """The same failure, with which checkpoint failed and which one the next attempt resumes from."""
    if not isinstance(error, UnavailableError):
        return error
    kept = f"kept: the checkpoint of step {newest.step}" if newest else "this attempt had stored no checkpoint before"
    failure = UnavailableError(f"checkpoint of step {step} was not stored ({kept}). {error}", error.reason)
    failure.__cause__ = error
    return failure


def _snapshot(folder: Path) -> Path:
    """The same files in another folder beside it: hard links, or copies where the disk does not support them."""
    snapshot = Path(tempfile.mkdtemp(prefix=".upload-", dir=folder.parent))
    try:
        shutil.copytree(folder, snapshot, copy_function=link_or_copy, dirs_exist_ok=True)
    except BaseException:
        shutil.rmtree(snapshot, ignore_errors=True)
        raise
    return snapshot
