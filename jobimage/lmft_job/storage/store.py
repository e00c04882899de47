"""What every kind of storage shares: the ``Store`` protocol, what a store is for, and local disk errors in words."""

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lmft_api.reasons import Reason
from lmft_job.errors import JobError, RefusedError, UnavailableError

Check = Callable[[], None]
"""Called before every chunk of a transfer; what it raises ends the transfer, and leaves nothing half-written."""

CHUNK_BYTES = 4 * 1024 * 1024
SMALL_BYTES = 16 * 1024 * 1024
"""Most that ``get_bytes`` reads: notes and manifests are smaller, and what others put there may fill the memory."""
MOST_OBJECTS = 1_000_000
"""Most that a listing holds."""


@dataclass(frozen=True)
class Purpose:
    """What a store is opened for: which fields of the manifest to name, and which reasons to give.

    Attributes:
        uri_field: the field that holds the address.
        credentials_field: the field that names the Secret with the keys.
        denied: reason when storage refuses.
        not_found: reason when what was asked for is not there.
        follows_links: whether links below a file:// folder are followed. Into an output others may write too.
    """

    uri_field: str
    credentials_field: str
    denied: Reason
    not_found: Reason
    follows_links: bool = True


PURPOSES = {
    # An output that is missing is a wrong address: the closed list has no reason of its own for it.
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
        key: below the store's root.
        size: in bytes.
        modified: when it was written, UNIX seconds by the storage's clock; 0 when not known.
    """

    key: str
    size: int
    modified: float = field(default=0.0, compare=False)


class ObjectMissingError(RefusedError):
    """The object asked for is not there."""


class Store(Protocol):
    """A place for objects, rooted at a URI. Keys are relative and '/'-separated.

    Every method raises ``RefusedError`` when another attempt would end the same (wrong keys, no such bucket, no
    right) and ``UnavailableError`` when it may not (unreachable, 5xx, 429, time-outs, no space left); its message is
    for people. A put is seen whole or not at all.
    """

    uri: str
    purpose: Purpose

    def put_file(self, key: str, path: Path, check: Check | None = None) -> str:
        """Stores a file and returns its SHA-256 in hex, computed in the same read."""

    def put_bytes(self, key: str, data: bytes) -> None:
        """Stores or replaces a small object."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Stores a small object unless one is there.

        Returns:
            True when the object is there with these bytes: written now, or by an earlier try whose answer was lost.
            False when another object has the key.
        """

    def get_file(self, key: str, path: Path, check: Check | None = None) -> str:
        """Fetches an object into a file, whole or not at all, and returns the SHA-256 in hex of what came.

        Raises:
            ObjectMissingError: when there is no such object.
        """

    def get_bytes(self, key: str) -> bytes | None:
        """A small object's bytes, or None when it is not there.

        Raises:
            TooLargeError: it has more than ``SMALL_BYTES``.
        """

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """All objects whose key begins with the prefix, sorted by key."""

    def delete(self, keys: Iterable[str]) -> None:
        """Removes objects, in the order given; those already gone are no error."""

    def abort_incomplete(self, prefix: str = "") -> int:
        """Removes what killed writers left half-written below the prefix; returns how many there were."""

    def probe_write(self) -> None:
        """Proves the right to write and delete with a probe object."""

    def child(self, prefix: str) -> "Store":
        """The same storage, rooted deeper."""

    def url(self, key: str) -> str:
        """Address of an object, for people."""


class TooLargeError(RefusedError):
    """An object that is read into memory is larger than any of ours."""


def small(data: bytes, url: str, purpose: Purpose) -> bytes:
    """The bytes of a small object, or ``TooLargeError``."""
    if len(data) > SMALL_BYTES:
        raise TooLargeError(
            purpose.denied,
            f"{purpose.uri_field}: {url} is larger than {SMALL_BYTES >> 20} MiB, more than such a file may have.",
        )
    return data


def too_many(purpose: Purpose, url: str) -> RefusedError:
    """The error for a listing that holds more than we take."""
    return RefusedError(
        purpose.denied,
        f"{purpose.uri_field}: there are more than {MOST_OBJECTS:,} objects below {url}; use a folder below.",
    )


def join_key(*parts: str) -> str:
    """Joins parts of a key with single slashes; empty parts vanish."""
    return "/".join(part.strip("/") for part in parts if part.strip("/"))


def escapes(key: str) -> bool:
    """Whether a key would leave the folder it is relative to (or names no object at all)."""
    return not key or "\0" in key or any(part in {"", ".", ".."} for part in key.split("/"))


def require_inside(key: str, purpose: Purpose) -> str:
    """Returns the key, or raises ``RefusedError`` when it would leave the store's root."""
    if escapes(key):
        raise RefusedError(
            purpose.denied, f"{purpose.uri_field}: the name {key!r} would lie outside the storage folder."
        )
    return key


_FULL = {errno.ENOSPC: "no space left", errno.EDQUOT: "disk quota exceeded", errno.EFBIG: "file size limit reached"}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}


def disk_error(error: OSError, path: Path, purpose: Purpose | None = None) -> JobError:
    """What an error of a local disk means for the run.

    Args:
        error: what the system said.
        path: the file or folder in question.
        purpose: what a file:// store is for; None for this machine's own working space.
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
