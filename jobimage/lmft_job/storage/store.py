"""Shared by every kind of storage: the ``Store`` protocol, a store's purpose, and translation of local disk errors."""

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lmft_api.reasons import Reason
from lmft_job.errors import JobError, RefusedError, UnavailableError

Check = Callable[[], None]
"""Called before every chunk of a transfer; an exception it raises ends the transfer, and leaves no partial file."""

CHUNK_BYTES = 4 * 1024 * 1024
SMALL_BYTES = 16 * 1024 * 1024
"""Maximum size for ``get_bytes``: notes and manifests are smaller, and a larger object could fill the memory."""
MOST_OBJECTS = 1_000_000
"""Maximum number of objects in a listing."""


@dataclass(frozen=True)
class Purpose:
    """What a store is opened for: determines the manifest fields and reasons in errors.

    Attributes:
        uri_field: the field that holds the address.
        credentials_field: the field that names the Secret with the keys.
        denied: reason if storage denies access.
        not_found: reason if the object does not exist.
        follows_links: whether links below a file:// folder are followed. Not in an output: others may write there.
    """

    uri_field: str
    credentials_field: str
    denied: Reason
    not_found: Reason
    follows_links: bool = True


PURPOSES = {
    # A missing output is a wrong address: the closed list has no separate reason for it.
    "output": Purpose(
        "spec.output.uri",
        "spec.output.credentialsSecretRef",
        Reason.STORAGE_ACCESS_DENIED,
        Reason.STORAGE_ACCESS_DENIED,
        follows_links=False,
    ),
    "dataset": Purpose(
        "spec.dataset.files",
        "spec.dataset.credentialsSecretRef",
        Reason.DATASET_ACCESS_DENIED,
        Reason.DATASET_NOT_FOUND,
    ),
    "model": Purpose(
        "spec.model.name",
        "spec.model.credentialsSecretRef",
        Reason.MODEL_ACCESS_DENIED,
        Reason.MODEL_NOT_FOUND,
    ),
}


@dataclass(frozen=True)
class ObjectInfo:
    """One object.

    Attributes:
        key: key relative to the store's root.
        size: in bytes.
        modified: when it was written, UNIX seconds by the storage's clock; 0 if unknown.
    """

    key: str
    size: int
    modified: float = field(default=0.0, compare=False)


class ObjectMissingError(RefusedError):
    """The requested object does not exist."""


class Store(Protocol):
    """A place for objects, rooted at a URI. Keys are relative and '/'-separated.

    Every method raises ``RefusedError`` if another attempt would fail the same way (wrong keys, no such bucket, no
    permission) and ``UnavailableError`` if it may not (unreachable, 5xx, 429, time-outs, no space left); the message is
    for people. Readers see a put whole or not at all.
    """

    uri: str
    purpose: Purpose

    def put_file(self, key: str, path: Path, check: Check | None = None) -> str:
        """Stores a file and returns its SHA-256 in hex, computed in the same read."""

    def put_bytes(self, key: str, data: bytes) -> None:
        """Stores or replaces a small object."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Stores a small object unless the key exists.

        Returns:
            True if the object has these bytes: written now, or by an earlier try whose response was lost.
            False if another object has the key.
        """

    def get_file(self, key: str, path: Path, check: Check | None = None) -> str:
        """Fetches an object into a file, whole or not at all, and returns the SHA-256 in hex of its content.

        Raises:
            ObjectMissingError: there is no such object.
        """

    def get_bytes(self, key: str) -> bytes | None:
        """A small object's bytes, or None if it does not exist.

        Raises:
            TooLargeError: it has more than ``SMALL_BYTES``.
        """

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """All objects whose key begins with the prefix, sorted by key."""

    def delete(self, keys: Iterable[str]) -> None:
        """Removes objects, in the order given; missing ones are not an error."""

    def abort_incomplete(self, prefix: str = "") -> int:
        """Removes partial uploads of killed writers below the prefix; returns how many there were."""

    def probe_write(self) -> None:
        """Checks the permission to write and delete with a probe object."""

    def child(self, prefix: str) -> "Store":
        """The same storage, rooted at a prefix below."""

    def url(self, key: str) -> str:
        """Address of an object, for people."""


class TooLargeError(RefusedError):
    """An object to read into memory is larger than any that LMFineTune writes."""


def small(data: bytes, url: str, purpose: Purpose) -> bytes:
    """The bytes of a small object, or ``TooLargeError``."""
    if len(data) > SMALL_BYTES:
        raise TooLargeError(
            purpose.denied,
            f"{purpose.uri_field}: {url} is larger than {SMALL_BYTES >> 20} MiB, more than such a file may have.",
        )
    return data


def too_many(purpose: Purpose, url: str) -> RefusedError:
    """The error for a listing with too many objects."""
    return RefusedError(
        purpose.denied,
        f"{purpose.uri_field}: there are more than {MOST_OBJECTS:,} objects below {url}; use a folder below.",
    )


def join_key(*parts: str) -> str:
    """Joins parts of a key with single slashes; drops empty parts."""
    return "/".join(part.strip("/") for part in parts if part.strip("/"))


def escapes(key: str) -> bool:
    """Whether a key leads out of the folder it is relative to (or names no object at all)."""
    return not key or "\0" in key or any(part in {"", ".", ".."} for part in key.split("/"))


def require_inside(key: str, purpose: Purpose) -> str:
    """Returns the key, or raises ``RefusedError`` if it leads out of the store's root."""
    if escapes(key):
        raise RefusedError(
            purpose.denied, f"{purpose.uri_field}: the name {key!r} would lie outside the storage folder."
        )
    return key


_FULL = {errno.ENOSPC: "no space left", errno.EDQUOT: "disk quota exceeded", errno.EFBIG: "file size limit reached"}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that there is no space left, whatever it was that needed it."""
    return isinstance(error, OSError) and error.errno in _FULL


def disk_error(error: OSError, path: Path, purpose: Purpose | None = None) -> JobError:
    """What an error of a local disk means for the run.

    Args:
        error: the system's error.
        path: the affected file or folder.
        purpose: purpose of a file:// store; None for local scratch space.
    """
    where = f"{purpose.uri_field}: {path}" if purpose else f"this machine's disk ({path})"
    if error.errno in _FULL:
        return UnavailableError(
            f"{where}: {_FULL[error.errno]}. Free or add space; what was complete before is kept, and the next attempt "
            "resumes from there."
        )
    if purpose and error.errno in _REFUSED:
        return RefusedError(
            purpose.denied,
            f"{where}: {error.strerror}. Check the path and who may write there "
            "(in a pod: the volume and its mount in spec.podTemplate.volumes).",
        )
    return UnavailableError(f"{where}: {error.strerror or error}.")
