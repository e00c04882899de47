"""Whole folders in storage: uploaded, fetched, and complete only once their MANIFEST.json, written last, exists.

Checkpoints and prepared data sets share this: objects first, in a folder with a random name, then one conditional put
of a manifest that names this folder, with the size and the SHA-256 of every file. Without a manifest a folder does not
exist; files that do not match it are damaged. A second writer of the same folder writes into another random one, so
that it cannot change what the first has completed, and its manifest comes too late. Earlier versions stored the files
beside the manifest.
"""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lmft_api.text.shown import one_line
from lmft_api.wire.layout import MANIFEST
from lmft_api.wire.versions import NewerFormatError, format_check
from lmft_job.errors import NewerReleaseError, RefusedError
from lmft_job.storage.local import FileStore
from lmft_job.storage.store import (
    Check,
    ObjectInfo,
    ObjectMissingError,
    Store,
    TooLargeError,
    disk_error,
    escapes,
    join_key,
)

FORMAT = 2
Needs = Callable[[Iterable[str]], Collection[str]]
"""Chooses, of the names of a folder's files, those to fetch."""
_SHOWN = 100  # characters of a name chosen by others
_NO_NAME = frozenset({errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.EINVAL})
UNNAMED_SECONDS = 86400.0
"""Age after which files that no manifest names are abandoned: no writer takes so long from one file to the next."""


class FileEntry(BaseModel):
    """Size in bytes and SHA-256 in hex of one file."""

    model_config = ConfigDict(frozen=True)

    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


def _known_labels(value: Any) -> Any:
    """Labels of the known types; a newer release may have others."""
    plain = value.items() if isinstance(value, dict) else ()
    return {name: label for name, label in plain if isinstance(label, int | str)} if plain else value


class Manifest(BaseModel):
    """Content of MANIFEST.json.

    Attributes:
        format: version of this layout.
        folder: name of the folder beside the manifest that holds the files; empty in format 1, where they are beside
            the manifest itself.
        labels: what the writer records about the folder, such as step and attempt.
        files: by name relative to the folder.
    """

    model_config = ConfigDict(frozen=True)
    _format = format_check(FORMAT, MANIFEST)

    format: int = Field(default=FORMAT, ge=1)
    folder: str = Field(default="", pattern="^[0-9A-Za-z]{0,64}$")
    labels: Annotated[dict[str, int | str], BeforeValidator(_known_labels)] = {}
    files: dict[str, FileEntry]


class DamagedFolderError(Exception):
    """A folder with a manifest that its files do not match; the message says which and how."""


def put_folder(store: Store, prefix: str, folder: Path, check: Check | None = None) -> dict[str, FileEntry]:
    """Stores all files below a folder and returns size and SHA-256 of each; each file is read once."""
    entries = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        digest = store.put_file(join_key(prefix, name), path, check)
        entries[name] = FileEntry(size=path.stat().st_size, sha256=digest)
    return entries


def publish_folder(
    store: Store, prefix: str, folder: Path, labels: dict[str, int | str] | None = None, check: Check | None = None
) -> bool:
    """Stores a folder so that it exists only once it is complete.

    Returns:
        True if this folder is the one in storage; False if another manifest was there first (which is equally good for
        content that is named by its fingerprint).
    """
    name = uuid.uuid4().hex
    below = join_key(prefix, name)
    entries = put_folder(store, below, folder, check)
    manifest = Manifest(folder=name, labels=labels or {}, files=entries)
    if check:
        check()
    if store.put_if_absent(join_key(prefix, MANIFEST), manifest.model_dump_json(indent=1).encode()):
        return True
    store.delete([join_key(below, file) for file in entries])
    try:
        theirs = read_manifest(store, prefix)
    except (DamagedFolderError, NewerReleaseError):
        return False
    return theirs is not None and (theirs.labels, theirs.files) == (manifest.labels, entries)


def remove_unnamed(store: Store, prefix: str) -> None:
    """Removes files in a folder that killed or late writers left there a day ago or earlier."""
    items = store.list(_below(prefix))
    now = max((item.modified for item in items), default=0.0)
    store.delete(unnamed_keys(store, prefix, items, now))


def unnamed_keys(store: Store, prefix: str, items: Iterable[ObjectInfo], now: float) -> list[str]:
    """Keys of a complete folder's objects that its manifest does not name, if all in their folder are a day old.

    Args:
        store: storage of the folder.
        prefix: prefix of the folder.
        items: all objects below it.
        now: UNIX seconds, by the storage's clock.
    """
    folders: dict[str, list[ObjectInfo]] = {}
    for item in items:
        name, inside, _ = item.key.removeprefix(_below(prefix)).partition("/")
        if inside:
            folders.setdefault(name, []).append(item)
    if len(folders) < 2:
        return []  # the usual case, which needs no manifest
    try:
        manifest = read_manifest(store, prefix)
    except (DamagedFolderError, NewerReleaseError):
        return []
    if manifest is None or not manifest.folder:
        return []
    return [
        item.key
        for name, found in folders.items()
        if name != manifest.folder and now - max(item.modified for item in found) > UNNAMED_SECONDS
        for item in found
    ]


def read_manifest(store: Store, prefix: str) -> Manifest | None:
    """The manifest of a folder; None if the folder is not complete.

    Raises:
        DamagedFolderError: it is not a manifest.
        NewerReleaseError: only a newer release can read it.
    """
    try:
        data = store.get_bytes(join_key(prefix, MANIFEST))
    except TooLargeError as error:
        raise DamagedFolderError(f"{MANIFEST} is too large") from error
    if data is None:
        return None
    try:
        manifest = Manifest.model_validate_json(data)
    except NewerFormatError as error:
        raise NewerReleaseError(f"{store.url(prefix)}: {error}") from error
    except ValidationError as error:
        raise DamagedFolderError(f"{MANIFEST} is damaged ({error.errors()[0]['msg']})") from error
    outside = [name for name in manifest.files if escapes(name)]
    if outside:
        raise DamagedFolderError(f"{MANIFEST} names {one_line(outside[0], _SHOWN)!r}, which lies outside the folder")
    return manifest


def fetch_verified(
    store: Store, prefix: str, destination: Path, check: Check | None = None, needs: Needs = frozenset
) -> Manifest | None:
    """Fetches a complete folder, or what is needed of it, and verifies every fetched file against the manifest.

    Sizes are compared before anything is fetched, of all files, so that a truncated checkpoint costs one listing.

    Args:
        destination: replaced if all files match, absent or empty otherwise.
        needs: of the names in the manifest, those to fetch; all by default.

    Returns:
        The manifest, or None if there is no complete folder.

    Raises:
        DamagedFolderError: a file is missing, truncated or altered.
    """
    shutil.rmtree(destination, ignore_errors=True)
    manifest = read_manifest(store, prefix)
    if manifest is None:
        return None
    below = join_key(prefix, manifest.folder)
    present = {item.key: item.size for item in store.list(_below(below))}
    for name, entry in manifest.files.items():
        size = present.get(join_key(below, name))
        if size is None:
            raise DamagedFolderError(f"{one_line(name, _SHOWN)} is missing")
        if size != entry.size:
            raise DamagedFolderError(f"{one_line(name, _SHOWN)} has {size:,} bytes, its manifest says {entry.size:,}")
    try:
        destination.mkdir(parents=True, exist_ok=True)
        wanted = needs(manifest.files)
        for name, entry in manifest.files.items():
            if name not in wanted:
                continue
            digest = store.get_file(join_key(below, name), _inside(destination, name), check)
            if digest != entry.sha256:
                raise DamagedFolderError(
                    f"{one_line(name, _SHOWN)} was altered: its SHA-256 does not match the manifest"
                )
    except BaseException as error:
        shutil.rmtree(destination, ignore_errors=True)
        if isinstance(error, ObjectMissingError):
            raise DamagedFolderError(f"{one_line(name, _SHOWN)} is missing") from error
        raise
    return manifest


def _below(prefix: str) -> str:
    return join_key(prefix) + "/" if join_key(prefix) else ""


def fetch_folder(store: Store, prefix: str, destination: Path, check: Check | None = None) -> Path:
    """A folder of storage as a local folder: fetched into the destination, or used in place for file://.

    Raises:
        ObjectMissingError: there is nothing below the prefix.
        RefusedError: a name in it cannot be a local file name.
    """
    objects = store.list(_below(prefix))
    if not objects:
        raise ObjectMissingError(
            store.purpose.not_found, f"{store.purpose.uri_field}: there is nothing below {store.url(prefix)}."
        )
    if isinstance(store, FileStore):
        return store.root / join_key(prefix)
    try:
        for item in objects:
            name = item.key.removeprefix(join_key(prefix)).lstrip("/")
            if not escapes(name):
                store.get_file(item.key, _inside(destination, name), check)
    except DamagedFolderError as error:
        raise RefusedError(
            store.purpose.not_found, f"{store.purpose.uri_field}: {store.url(prefix)} cannot be fetched: {error}."
        ) from error
    return destination


def expand(store: Store, pattern: str) -> list[ObjectInfo]:
    """The objects that match a pattern such as ``logs/2026-*/part-?.jsonl``, sorted by key.

    ``*`` and ``?`` stay within one level, ``**`` as a whole level matches any number of levels; brackets are literal.

    Raises:
        ObjectMissingError: nothing matches; the message lists what exists.
    """
    literal = re.split(r"[*?]", pattern, maxsplit=1)[0]
    inside = store.list(literal if literal == pattern else literal.rpartition("/")[0] + "/" * ("/" in literal))
    found = [item for item in inside if item.key == pattern or matches(item.key.split("/"), pattern.split("/"))]
    if found:
        return found
    folder = literal.rpartition("/")[0]
    there = inside or store.list(folder + "/" if folder else "")
    names = ", ".join(one_line(item.key, _SHOWN) for item in there[:5])
    more = f", and {len(there) - 5} more" if len(there) > 5 else ""
    raise ObjectMissingError(
        store.purpose.not_found,
        f"{store.purpose.uri_field}: no object matches {store.uri}/{pattern}; "
        + (f"there are {names}{more}." if there else f"{store.url(folder)} is empty or does not exist."),
    )


def matches(levels: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether a key's levels match those of a pattern; only ``**`` crosses levels."""
    reached = {0}  # numbers of levels that the patterns so far can match
    for pattern in patterns:
        if pattern == "**":
            reached = set(range(min(reached), len(levels) + 1)) if reached else reached
        else:
            letters = pattern.replace("[", "[[]")
            reached = {at + 1 for at in reached if at < len(levels) and fnmatchcase(levels[at], letters)}
    return len(levels) in reached


def _inside(folder: Path, name: str) -> Path:
    """The path for a file of that name; creates its folder.

    Raises:
        DamagedFolderError: such a file cannot exist there. Storage allows names that a disk does not: of any length,
            and the same name as a folder.
    """
    path = folder / name
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise DamagedFolderError(f"{one_line(name, _SHOWN)!r} lies outside the folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path) and path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if len(path.name.encode()) > os.pathconf(path.parent, "PC_NAME_MAX"):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    except OSError as error:
        if error.errno not in _NO_NAME:
            raise disk_error(error, path) from error
        raise DamagedFolderError(f"{one_line(name, _SHOWN)!r} cannot be a file here ({error.strerror})") from error
    return path


def link_or_copy(source: str, target: str) -> None:
    """Another name for a file on this disk, or a copy of it where the disk knows no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
