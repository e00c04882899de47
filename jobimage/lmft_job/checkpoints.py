"""The checkpoint protocol: what a complete checkpoint is, which is the newest that can be trusted, which may go.

Layout below a run: ``checkpoints/attempt-0002/step-00000400/{files…, MANIFEST.json}``. A checkpoint exists when its
manifest does (see :mod:`lmft_job.storage.folders`). An attempt writes and removes only in folders of its own number and
below, so that a pod that outlived its node cannot touch what its successor saved; it reads all.
"""

import os
import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lmft_job.storage import MANIFEST, Check, DamagedFolderError, Store, fetch_verified, publish_folder

FOLDER = "checkpoints"
_KEY = re.compile(rf"({FOLDER}/attempt-(\d{{4,}})/step-(\d{{8,}}))/(.+)")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in storage: its attempt, the optimiser steps it holds, its key prefix and its address."""

    attempt: int
    step: int
    prefix: str
    uri: str


def prefix_of(attempt: int, step: int) -> str:
    """Key prefix of a checkpoint within its run."""
    return f"{FOLDER}/attempt-{attempt:04d}/step-{step:08d}"


def publish(store: Store, folder: Path, attempt: int, step: int, check: Check | None = None) -> Checkpoint:
    """Store a folder as a checkpoint: objects first, the manifest last.

    Raises:
        JobError: storage refused or failed; then there is no such checkpoint.
    """
    prefix = prefix_of(attempt, step)
    publish_folder(store, prefix, folder, {"attempt": attempt, "step": step}, check)
    return Checkpoint(attempt, step, prefix, store.url(prefix))


def complete(store: Store) -> list[Checkpoint]:
    """All checkpoints that have a manifest, the furthest first; of equal ones that of the latest attempt."""
    return _sorted(store, {key: names for key, names in _folders(store).items() if MANIFEST in names})


def newest_verified(
    store: Store, destination: Path, say: Callable[[str], None], check: Check | None = None
) -> Checkpoint | None:
    """Fetch the furthest checkpoint whose every file matches its manifest; None when there is none.

    Args:
        store: of the run.
        destination: folder that holds it afterwards.
        say: gets a line about each one that is damaged and passed over.
        check: called between blocks; may raise to stop.
    """
    for checkpoint in complete(store):
        try:
            if fetch_verified(store, checkpoint.prefix, destination, check) is not None:
                return checkpoint
        except DamagedFolderError as damage:
            say(f"the checkpoint at step {checkpoint.step} is passed over: {damage} ({checkpoint.uri})")
    return None


def prune(store: Store, keep: int, attempt: int | None = None) -> list[Checkpoint]:
    """Remove all but the furthest ``keep`` checkpoints, manifest first; returns what was removed.

    With an attempt only folders of this and earlier attempts are touched, else all, incomplete ones included.
    """
    folders = _folders(store)
    whole = _sorted(store, {key: names for key, names in folders.items() if MANIFEST in names})
    kept = {checkpoint.prefix for checkpoint in whole[:keep]}
    gone = [c for c in whole[keep:] if attempt is None or c.attempt <= attempt]
    for checkpoint in gone:
        _remove(store, checkpoint.prefix, folders[checkpoint.prefix, checkpoint.attempt, checkpoint.step])
    for (prefix, number, _), names in folders.items():
        # What an earlier attempt left half-sent; this attempt's own may be on its way.
        if MANIFEST not in names and prefix not in kept and (attempt is None or number < attempt):
            _remove(store, prefix, names)
    return gone


class CheckpointUploader:
    """Sends checkpoints beside training, one at a time; a failure is raised where it is next looked at.

    Args:
        store: of the run.
        attempt: number of this attempt.
        keep: how many complete checkpoints stay.
        arrived: called, in the sending thread, when one is complete in storage.
    """

    def __init__(self, store: Store, attempt: int, keep: int, arrived: Callable[[Checkpoint], None]) -> None:
        self._store, self._attempt, self._keep, self._arrived = store, attempt, keep, arrived
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def submit(self, folder: Path, step: int) -> None:
        """Send a folder; waits for the one before. The folder may be removed as soon as this returns.

        Raises:
            JobError: what went wrong with the one before.
        """
        self.wait()
        snapshot = folder.with_name(f".sending-{step}")
        shutil.rmtree(snapshot, ignore_errors=True)
        _link_tree(folder, snapshot)
        self._thread = threading.Thread(target=self._send, args=(snapshot, step), name="upload")
        self._thread.start()

    def wait(self) -> None:
        """Until nothing is on its way.

        Raises:
            JobError: what went wrong; raised once.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _send(self, snapshot: Path, step: int) -> None:
        try:
            checkpoint = publish(self._store, snapshot, self._attempt, step)
            self._arrived(checkpoint)
            prune(self._store, self._keep, self._attempt)
        except BaseException as failure:  # noqa: BLE001 - carried over to the thread that trains
            self._failure = failure
        finally:
            shutil.rmtree(snapshot, ignore_errors=True)


_Folders = dict[tuple[str, int, int], list[str]]


def _folders(store: Store) -> _Folders:
    """Names of the objects of each checkpoint folder, by prefix, attempt and step."""
    folders: _Folders = {}
    for info in store.list(FOLDER + "/"):
        if match := _KEY.fullmatch(info.key):
            prefix, attempt, step, name = match.groups()
            folders.setdefault((prefix, int(attempt), int(step)), []).append(name)
    return folders


def _sorted(store: Store, folders: _Folders) -> list[Checkpoint]:
    found = [Checkpoint(attempt, step, prefix, store.url(prefix)) for prefix, attempt, step in folders]
    return sorted(found, key=lambda c: (c.step, c.attempt), reverse=True)


def _remove(store: Store, prefix: str, names: list[str]) -> None:
    """The manifest by itself first: a half-removed checkpoint must not look complete."""
    if MANIFEST in names:
        store.delete([f"{prefix}/{MANIFEST}"])
    store.delete([f"{prefix}/{name}" for name in names if name != MANIFEST])


def _link_tree(source: Path, target: Path) -> None:
    """A second name for every file, or a copy where the file system has no links."""

    def link(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:
            shutil.copyfile(one, other)

    shutil.copytree(source, target, copy_function=link)
