"""The layout below a run's folder, which checkpoint is taken, and what is removed.

``checkpoints/attempt-0002-<first 8 of the pod's UID>/step-00000400/MANIFEST.json`` names a folder with a random name
beside it, which holds the files. A pod writes in its own folder only, so that a pod believed dead, or one with the
same attempt number, cannot change what another has stored; it reads the folders of all. Earlier versions left out the
UID, and stored the files beside the manifest.
"""

import re
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from lmft_api.wire.layout import CHECKPOINTS_FOLDER, checkpoint_folder
from lmft_job.errors import RefusedError
from lmft_job.storage import (
    MANIFEST,
    UNNAMED_SECONDS,
    Check,
    DamagedFolderError,
    Needs,
    ObjectInfo,
    Store,
    fetch_verified,
    publish_folder,
    unnamed_keys,
)

Say = Callable[[str], None]
Loads = Callable[[Path], None]
"""Checks whether a checkpoint's folder can be loaded; raises DamagedFolderError if not."""

_LOCATION = re.compile(
    rf"(?P<prefix>{CHECKPOINTS_FOLDER}/attempt-(?P<attempt>[0-9]{{1,9}})(?:-[0-9A-Za-z]+)?/step-(?P<step>[0-9]{{1,15}}))/"
    r"(?P<name>.+)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint in storage.

    Attributes:
        attempt: number of the attempt that wrote it, from 1.
        step: optimizer steps done.
        prefix: its folder, relative to the run's folder.
        uri: its address, for people.
        time: when its manifest was written, UNIX seconds by the storage's clock; 0 if unknown.
    """

    attempt: int
    step: int
    prefix: str
    uri: str
    time: float = field(default=0.0, compare=False)


def complete(store: Store) -> list[Checkpoint]:
    """All checkpoints that have a manifest, best first; not verified.

    Ordered by steps, then by the time of the manifest. Not by attempt number, which may repeat after the cluster's
    database was restored to an older snapshot.
    """
    return _survey(store)[0]


def newest_verified(
    store: Store,
    destination: Path,
    say: Say,
    check: Check | None = None,
    passed_over: set[str] | None = None,
    loads: Loads = lambda folder: None,
    needs: Needs = frozenset,
) -> Checkpoint | None:
    """Fetches the newest complete checkpoint into a folder, and compares every fetched file with its SHA-256.

    Damaged ones are skipped, each with a message that says why.

    Args:
        store: rooted at the run's folder.
        destination: replaced; does not exist afterwards if there is no usable checkpoint.
        say: called with messages for people.
        check: called between chunks; an exception it raises ends the download (an interrupt, for instance).
        passed_over: receives the folders of damaged checkpoints, for :func:`prune`.
        loads: final check of the folder; a checkpoint that it rejects is skipped too.
        needs: of the names of its files, those to fetch.

    Raises:
        UnavailableError: storage failed after its retries. That does not show that a checkpoint is damaged, so none is
            skipped for it.
    """
    passed_over = set() if passed_over is None else passed_over
    while True:
        # Listed again each time: an earlier attempt may still be publishing and pruning.
        candidates = [found for found in complete(store) if found.prefix not in passed_over]
        if not candidates:
            return None
        candidate = candidates[0]
        try:
            if fetch_checkpoint(store, candidate, destination, check, needs):
                loads(destination)
                return candidate
            problem = "it was being removed"
        except DamagedFolderError as error:
            shutil.rmtree(destination, ignore_errors=True)
            problem = str(error)
        passed_over.add(candidate.prefix)
        before = candidates[1] if len(candidates) > 1 else None
        follow = (
            f"trying step {before.step} (attempt {before.attempt}) instead" if before else "there is none before it"
        )
        say(f"checkpoint of step {candidate.step} (attempt {candidate.attempt}) skipped: {problem}; {follow}")


def fetch_checkpoint(
    store: Store, wanted: Checkpoint, destination: Path, check: Check | None, needs: Needs = frozenset
) -> bool:
    """Fetches one checkpoint into a folder; whether it was there. Raises DamagedFolderError if its files are not."""
    manifest = fetch_verified(store, wanted.prefix, destination, check, needs)
    if manifest is None:
        return False
    labels = {"attempt": wanted.attempt, "step": wanted.step}
    if {name: manifest.labels.get(name) for name in labels} != labels:
        raise DamagedFolderError(f"{MANIFEST} belongs to another checkpoint")
    return True


def publish(
    store: Store,
    folder: Path,
    attempt: int,
    step: int,
    check: Check | None = None,
    pod: str = "",
    passed_over: set[str] | None = None,
) -> Checkpoint:
    """Stores a checkpoint folder, its manifest last; it exists for readers once the manifest is there.

    Args:
        store: rooted at the run's folder.
        folder: local folder.
        attempt: our own attempt number.
        step: optimizer steps done.
        check: see :func:`lmft_job.storage.put_folder`.
        pod: UID of our pod, if known.
        passed_over: folders found damaged; one of our own at this step is replaced.

    Raises:
        RefusedError: the pod has published another checkpoint of this step: two processes believe that they are this
            attempt.
    """
    prefix = checkpoint_folder(attempt, step, pod)
    make_way(store, prefix, passed_over)
    if not publish_folder(store, prefix, folder, {"attempt": attempt, "step": step}, check):
        raise refused(store, prefix, attempt)
    return Checkpoint(attempt, step, prefix, store.url(prefix))


def make_way(store: Store, prefix: str, passed_over: set[str] | None) -> None:
    """Remove the manifest of a checkpoint that was found damaged, where another one of its step is to replace it."""
    if passed_over and prefix in passed_over:
        store.delete([f"{prefix}/{MANIFEST}"])
        passed_over.discard(prefix)


def refused(store: Store, prefix: str, attempt: int) -> RefusedError:
    """The error where another process has stored what this one was to store."""
    return RefusedError(
        store.purpose.denied,
        f"{store.url(prefix)} was already written with other content: another process runs as attempt {attempt}. "
        "Stop it, or start a new attempt.",
    )


def prune(store: Store, keep: int, attempt: int, passed_over: Collection[str] = ()) -> int:
    """Removes all but the newest checkpoints, and what was left incomplete.

    The manifest is removed first, so that a reader never takes a half-removed checkpoint for a complete one. Complete
    checkpoints of later attempts are not touched: a pod believed dead must not remove what its successor wrote. Files
    that no manifest names are removed for earlier attempts, and for any attempt once they are a day old.

    Args:
        keep: how many complete checkpoints stay, at least 1; the newest of our own attempt always stays.
        attempt: our own attempt number.
        passed_over: folders found damaged; they are removed first, and do not count as kept.

    Returns:
        How many complete checkpoints were removed.
    """
    whole, folders = _survey(store)
    ours = [found for found in whole if found.attempt <= attempt]
    damaged = [found for found in ours if found.prefix in passed_over]
    good = [found for found in ours if found not in damaged]
    own = next((found for found in good if found.attempt == attempt), None)
    old = [found for found in good[max(keep, 1) :] if found is not own] + damaged if good else []
    for prefix in [*(found.prefix for found in reversed(old)), *_abandoned(whole, folders, attempt)]:
        store.delete(sorted(folders[prefix].keys, key=lambda key: not key.endswith("/" + MANIFEST)))
    for found in good:
        if found not in old:
            store.delete(unnamed_keys(store, found.prefix, folders[found.prefix].items, _clock(folders)))
    return len(old)


@dataclass(frozen=True)
class _Folder:
    """Contents of one checkpoint's folder, complete or not."""

    attempt: int
    items: list[ObjectInfo] = field(default_factory=list)

    @property
    def keys(self) -> list[str]:
        return [item.key for item in self.items]


def _abandoned(whole: Collection[Checkpoint], folders: dict[str, _Folder], attempt: int) -> list[str]:
    """Folders without a manifest that will not be completed: of earlier attempts, or a day old."""
    named, now = {found.prefix for found in whole}, _clock(folders)
    if not any(found.attempt <= attempt for found in whole):
        return []
    return [
        prefix
        for prefix, folder in folders.items()
        if prefix not in named
        and (folder.attempt < attempt or now - max(item.modified for item in folder.items) > UNNAMED_SECONDS)
    ]


def _clock(folders: dict[str, _Folder]) -> float:
    """The current time by the storage's clock, or somewhat earlier: ours may differ."""
    return max((item.modified for folder in folders.values() for item in folder.items), default=0.0)


def _survey(store: Store) -> tuple[list[Checkpoint], dict[str, _Folder]]:
    folders: dict[str, _Folder] = {}
    whole = []
    for item in store.list(f"{CHECKPOINTS_FOLDER}/"):
        match = _LOCATION.fullmatch(item.key)
        if not match:
            continue
        prefix, attempt, step = match["prefix"], int(match["attempt"]), int(match["step"])
        folders.setdefault(prefix, _Folder(attempt)).items.append(item)
        if match["name"] == MANIFEST:
            whole.append(Checkpoint(attempt, step, prefix, store.url(prefix), item.modified))
    return sorted(whole, key=_newness, reverse=True), folders


def _newness(found: Checkpoint) -> tuple[int, float, int, str]:
    return found.step, found.time, found.attempt, found.prefix
