"""A checkpoint that several processes store together: each its files and a note of them, the first the manifest.

``<step>/<name>/parts/<index>.json`` says which files a process has put into the folder. The first process waits for
the notes of all, and then writes ``MANIFEST.json``, their union: without every note there is no manifest, and without
a manifest no checkpoint.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmft_api.wire.layout import PARTS_FOLDER, checkpoint_folder
from lmft_job.checkpoints.protocol import Checkpoint, refused
from lmft_job.errors import UnavailableError
from lmft_job.storage import MANIFEST, Check, FileEntry, Manifest, Store, join_key, put_folder, read_manifest

POLL_SECONDS = 0.5


class PartNote(BaseModel):
    """Content of a part's note.

    Attributes:
        files: what the process has stored, by name relative to the checkpoint's folder.
    """

    model_config = ConfigDict(frozen=True)

    format: int = Field(default=1, ge=1)
    files: dict[str, FileEntry]


@dataclass(frozen=True)
class PartOf:
    """Which part of a checkpoint a process stores.

    Attributes:
        index: number of the part, from 0.
        count: how many there are.
        name: name of the folder that all of them put their files into.
    """

    index: int
    count: int
    name: str


def put_part(store: Store, folder: Path, attempt: int, step: int, pod: str, part: PartOf, check: Check) -> None:
    """Store a process's files, and then its note.

    Args:
        store: rooted at the run's folder.
        folder: local folder with the files.
        attempt: number of the attempt.
        step: optimizer steps done.
        pod: UID of the first pod, if known.
        part: which one.
        check: called between chunks.

    Raises:
        RefusedError: another process has stored this part.
    """
    place = checkpoint_folder(attempt, step, pod)
    below = join_key(place, part.name)
    note = PartNote(files=put_folder(store, below, folder, check))
    key = _note(below, part.index)
    if not store.put_if_absent(key, note.model_dump_json().encode()) and _read_note(store, key) != note:
        raise refused(store, place, attempt)


def publish_parts(
    store: Store,
    folder: Path,
    attempt: int,
    step: int,
    pod: str,
    part: PartOf,
    check: Check,
    stopped: Callable[[], None],
) -> Checkpoint:
    """Store the first process's files, wait for the notes of the others, and write the manifest.

    Args:
        store: rooted at the run's folder.
        folder: local folder with this process's files.
        attempt: number of the attempt.
        step: optimizer steps done.
        pod: UID of our pod, if known.
        part: the first one.
        check: called when something has moved.
        stopped: called while nothing moves; an exception it raises ends the wait.

    Raises:
        RefusedError: another process has published this checkpoint.
    """
    place = checkpoint_folder(attempt, step, pod)
    put_part(store, folder, attempt, step, pod, part, check)
    files = _await_notes(store, join_key(place, part.name), part.count, check, stopped)
    manifest = Manifest(folder=part.name, labels={"attempt": attempt, "step": step}, files=files)
    stopped()
    stored = store.put_if_absent(join_key(place, MANIFEST), manifest.model_dump_json(indent=1).encode())
    if not stored and read_manifest(store, place) != manifest:
        raise refused(store, place, attempt)
    return Checkpoint(attempt, step, place, store.url(place))


def _await_notes(
    store: Store, below: str, count: int, check: Check, stopped: Callable[[], None]
) -> dict[str, FileEntry]:
    """The files of all parts, once all notes are there."""
    seen: set[str] = set()
    wanted = [_note(below, index) for index in range(count)]
    while True:
        there = {item.key for item in store.list(f"{below}/")}
        if there != seen:
            seen = there
            check()
        if seen.issuperset(wanted):
            break
        stopped()
        time.sleep(POLL_SECONDS)
    files: dict[str, FileEntry] = {}
    for key in wanted:
        files |= _read_note(store, key).files
    return dict(sorted(files.items()))


def _read_note(store: Store, key: str) -> PartNote:
    data = store.get_bytes(key)
    try:
        return PartNote.model_validate_json(data or b"")
    except ValidationError as error:
        raise UnavailableError(f"{store.url(key)} is damaged ({error.errors()[0]['msg']})") from error


def _note(below: str, index: int) -> str:
    return join_key(below, PARTS_FOLDER, f"{index}.json")
