"""Checkpoints in storage: written whole or not at all, verified before they are believed, pruned manifest first.

An attempt writes in its own folder only, so that a pod thought dead cannot touch its successor's checkpoints; it reads
those of all. Layout below a run's folder: ``checkpoints/attempt-0002/step-00000400/{files…, MANIFEST.json}``.
"""

import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from lmft_api.run import CHECKPOINTS_FOLDER, checkpoint_folder
from lmft_job.errors import InterruptedRunError, JobError, RefusedError, UnavailableError
from lmft_job.storage import (
    MANIFEST,
    Check,
    DamagedFolderError,
    Store,
    disk_error,
    fetch_verified,
    publish_folder,
)

Say = Callable[[str], None]

_LOCATION = re.compile(rf"({CHECKPOINTS_FOLDER}/attempt-(\d+)/step-(\d+))/(.+)")
_POLL_SECONDS = 0.1


@dataclass(frozen=True, order=True)
class Checkpoint:
    """A complete checkpoint in storage. The order is the lineage: a later attempt began from what was newest then.

    Attributes:
        attempt: which attempt wrote it, from 1.
        step: optimizer steps done.
        prefix: its folder, relative to the run's.
        uri: its address, for people.
    """

    attempt: int
    step: int
    prefix: str
    uri: str


def prefix_of(attempt: int, step: int) -> str:
    """Folder of a checkpoint, relative to the run's."""
    return checkpoint_folder(attempt, step)


def complete(store: Store) -> list[Checkpoint]:
    """All checkpoints that have a manifest, newest first; not verified."""
    return _survey(store)[0]


def newest_verified(
    store: Store, destination: Path, say: Say, check: Check | None = None, passed_over: set[str] | None = None
) -> Checkpoint | None:
    """Fetches the newest complete checkpoint into a folder, every file compared with its SHA-256.

    Damaged ones are passed over, each with a line that says why.

    Args:
        store: rooted at the run's folder.
        destination: replaced; does not exist afterwards when there is no good checkpoint.
        say: takes the lines for people.
        check: called between chunks; what it raises ends the download (an interrupt, for instance).
        passed_over: gets the folders of those that are damaged, for :func:`prune`.

    Raises:
        UnavailableError: storage failed after its retries. That says nothing about a checkpoint, so none is passed
            over for it.
    """
    passed_over = set() if passed_over is None else passed_over
    while True:
        # Listed anew each time: an attempt before us may still be publishing and pruning.
        candidates = [found for found in complete(store) if found.prefix not in passed_over]
        if not candidates:
            return None
        candidate = candidates[0]
        try:
            manifest = fetch_verified(store, candidate.prefix, destination, check)
            if manifest is not None:
                labels = {"attempt": candidate.attempt, "step": candidate.step}
                if {name: manifest.labels.get(name) for name in labels} != labels:
                    shutil.rmtree(destination, ignore_errors=True)
                    raise DamagedFolderError(f"{MANIFEST} belongs to another checkpoint")
                return candidate
            problem = "it was being removed"
        except DamagedFolderError as error:
            problem = str(error)
        passed_over.add(candidate.prefix)
        before = candidates[1] if len(candidates) > 1 else None
        follow = (
            f"trying step {before.step} (attempt {before.attempt}) instead" if before else "there is none before it"
        )
        say(f"checkpoint of step {candidate.step} (attempt {candidate.attempt}) passed over: {problem}; {follow}")


def publish(store: Store, folder: Path, attempt: int, step: int, check: Check | None = None) -> Checkpoint:
    """Stores a checkpoint folder, its manifest last; it exists for readers from that moment on.

    Raises:
        RefusedError: when the attempt has published another checkpoint of this step: two processes believe that they
            are this attempt.
    """
    prefix = prefix_of(attempt, step)
    if not publish_folder(store, prefix, folder, {"attempt": attempt, "step": step}, check):
        raise RefusedError(
            store.purpose.denied,
            f"{store.url(prefix)} was already written with other content: another process runs as attempt {attempt}. "
            "Stop it, or start a new attempt.",
        )
    return Checkpoint(attempt, step, prefix, store.url(prefix))


def prune(store: Store, keep: int, attempt: int, passed_over: Collection[str] = ()) -> int:
    """Removes all but the newest checkpoints, and what earlier attempts left incomplete.

    Each loses its manifest first, so that a reader never takes a half-removed one for whole. Attempts after ours are
    out of sight: a pod thought dead must not remove what its successor wrote.

    Args:
        keep: how many complete checkpoints stay, at least 1.
        attempt: our own attempt.
        passed_over: folders found damaged; they go first, and count for none of those kept.

    Returns:
        How many complete checkpoints were removed.
    """
    whole, keys = _survey(store)
    ours = [found for found in whole if found.attempt <= attempt]
    damaged = [found for found in ours if found.attempt < attempt and found.prefix in passed_over]
    good = [found for found in ours if found not in damaged]
    old = good[max(keep, 1) :] + damaged if good else []
    known = {found.prefix for found in whole}
    abandoned = [
        prefix for prefix, number in keys.attempts.items() if prefix not in known and number < attempt and ours[:1]
    ]
    for prefix in [*(found.prefix for found in reversed(old)), *abandoned]:
        store.delete(sorted(keys.below[prefix], key=lambda key: not key.endswith("/" + MANIFEST)))
    return len(old)


@dataclass(frozen=True)
class _Keys:
    """Keys of all checkpoint folders, complete or not: keys by folder, and each folder's attempt."""

    below: dict[str, list[str]]
    attempts: dict[str, int]


def _survey(store: Store) -> tuple[list[Checkpoint], _Keys]:
    below: dict[str, list[str]] = {}
    attempts: dict[str, int] = {}
    whole = []
    for item in store.list(f"{CHECKPOINTS_FOLDER}/"):
        match = _LOCATION.fullmatch(item.key)
        if not match:
            continue
        prefix, attempt, step, name = match[1], int(match[2]), int(match[3]), match[4]
        below.setdefault(prefix, []).append(item.key)
        attempts[prefix] = attempt
        if name == MANIFEST:
            whole.append(Checkpoint(attempt, step, prefix, store.url(prefix)))
    return sorted(whole, reverse=True), _Keys(below, attempts)


class CheckpointUploader:
    """Publishes checkpoints beside training: one upload in flight, old ones pruned after each.

    A failure is never lost: it is raised by the next ``submit``, ``check``, ``wait``, or by leaving the ``with`` block.

    Args:
        store: rooted at the run's folder.
        attempt: our attempt; we write in its folder only.
        keep: how many complete checkpoints stay.
        say: takes lines for people, called from the upload's thread.
        published: called in the upload's thread with each checkpoint that is complete.
        moved: called by whoever waits for an upload, as long as it gets on.
        passed_over: folders of checkpoints found damaged, see :func:`prune`.
    """

    def __init__(
        self,
        store: Store,
        attempt: int,
        keep: int,
        say: Say,
        published: Callable[[Checkpoint], None] = lambda checkpoint: None,
        moved: Callable[[], None] = lambda: None,
        passed_over: Collection[str] = (),
    ) -> None:
        self.newest: Checkpoint | None = None
        self._store = store
        self._attempt = attempt
        self._keep = keep
        self._say = say
        self._published = published
        self._moved = moved
        self._passed_over = passed_over
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
        # The block's own error matters most; the upload still ends well if it can, and its failure is told beside it.
        try:
            self.wait()
        except JobError as failure:
            error.add_note(f"The checkpoint upload failed too: {failure}")
            self._say(str(failure))

    def submit(self, folder: Path, step: int) -> None:
        """Publishes a checkpoint folder in the background, after the upload before it.

        The folder's files are linked aside first, so the caller may remove it at once.

        Raises:
            JobError: the failure of the upload before it.
            InterruptedRunError: when the time set by ``limit`` is over.
        """
        self.wait()
        try:
            snapshot = _snapshot(folder)
        except OSError as error:
            raise disk_error(error, folder) from error
        self._step = step
        self._thread = threading.Thread(
            target=self._upload, args=(snapshot, step), name=f"checkpoint-{step}", daemon=True
        )
        self._thread.start()

    def check(self) -> None:
        """Raises the failure of an upload that has ended; cheap enough for every step."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def wait(self) -> Checkpoint | None:
        """Waits for the upload in flight and returns the newest checkpoint that this attempt has published.

        Raises:
            JobError: the upload's failure.
            InterruptedRunError: when the time set by ``limit`` is over; the upload is abandoned, what it had sent is
                removed or ignored, and the checkpoint before it stays the newest.
        """
        thread, seen = self._thread, self._moves
        while thread is not None and thread.is_alive():
            left = float("inf") if self._deadline is None else self._deadline - time.monotonic()
            if left <= 0:
                self._stop.set()
                raise InterruptedRunError(self._abandoned())
            thread.join(min(_POLL_SECONDS, left))
            if seen != self._moves:
                # An upload that hangs says nothing, and whoever watches us hears that.
                seen = self._moves
                self._moved()
        self._thread = None
        self.check()
        return self.newest

    def limit(self, seconds: float) -> None:
        """From now on no wait, nor one that has begun, lasts longer than this in all. For a signal handler."""
        self._deadline = time.monotonic() + seconds

    def _upload(self, snapshot: Path, step: int) -> None:
        try:
            self.newest = publish(self._store, snapshot, self._attempt, step, self._on_its_way)
        except JobError as error:
            self._failure = _with_what_is_kept(error, step, self.newest)
            return
        except BaseException as error:  # noqa: BLE001 - raised again in the training thread, by check()
            self._failure = error
            return
        finally:
            shutil.rmtree(snapshot, ignore_errors=True)
        try:
            self._published(self.newest)
            prune(self._store, self._keep, self._attempt, self._passed_over)
        except JobError as error:
            # The checkpoint is safe, which is what matters; the next prune finds the same old ones again.
            self._say(f"checkpoint {step} is stored, but not everything old could be removed: {error}")
        except BaseException as error:  # noqa: BLE001 - as above
            self._failure = error

    def _on_its_way(self) -> None:
        self._moves += 1
        if self._stop.is_set():
            raise InterruptedRunError(self._abandoned())

    def _abandoned(self) -> str:
        kept = f"step {self.newest.step} is the newest in storage" if self.newest else "this attempt has stored none"
        return f"the upload of checkpoint {self._step} did not end within the grace period; {kept}"


def _with_what_is_kept(error: JobError, step: int, newest: Checkpoint | None) -> JobError:
    """The same failure, and for people: which checkpoint it hit, and which one the next attempt starts from."""
    if not isinstance(error, UnavailableError):
        return error
    kept = f"kept: the checkpoint of step {newest.step}" if newest else "this attempt had stored no checkpoint before"
    told = UnavailableError(f"checkpoint of step {step} was not stored ({kept}). {error}", error.reason)
    told.__cause__ = error
    return told


def _snapshot(folder: Path) -> Path:
    """The same files under another folder beside it: hard links, or copies where the disk has none."""
    snapshot = Path(tempfile.mkdtemp(prefix=".upload-", dir=folder.parent))
    try:
        shutil.copytree(folder, snapshot, copy_function=_link_or_copy, dirs_exist_ok=True)
    except BaseException:
        shutil.rmtree(snapshot, ignore_errors=True)
        raise
    return snapshot


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
