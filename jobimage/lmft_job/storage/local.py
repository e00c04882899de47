"""file:// storage: a folder of plain files, with the same guarantees as an object store.

A file appears whole or not at all: it is written under a temporary name, flushed to the disk and renamed. Hostile
content of the folder is handled in ``beneath``.
"""

import errno
import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import BinaryIO

from typing_extensions import override

from lmft_job.storage.beneath import Found, Walk, folder_beneath, open_beneath, open_followed
from lmft_job.storage.store import (
    CHUNK_BYTES,
    MOST_OBJECTS,
    SMALL_BYTES,
    Check,
    ObjectInfo,
    ObjectMissingError,
    Purpose,
    Store,
    disk_error,
    join_key,
    require_inside,
    small,
    too_many,
)

_TEMPORARY = ".lmft-part-"
_NOT_EMPTY = {errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV, errno.ENOSYS}


class FileStore(Store):
    """See ``lmft_job.storage.Store``.

    Args:
        top: the folder that the address names; it may be a link.
        purpose: determines whether links below it are followed.
        below: levels of the store's root below ``top``.
    """

    def __init__(self, top: Path, purpose: Purpose, below: tuple[str, ...] = ()) -> None:
        self.root = top.joinpath(*below)
        self.purpose = purpose
        self.uri = self.root.as_uri()
        self._top = top
        self._below = below

    @override
    def put_file(self, key: str, path: Path, check: Check | None = None) -> str:
        try:
            opened = path.open("rb")
        except OSError as error:
            raise disk_error(error, path) from error
        with opened as source, self._writing(key) as target:
            digest = copy_stream(source, target.file, check)
            target.replace()
        return digest

    @override
    def put_bytes(self, key: str, data: bytes) -> None:
        with self._writing(key) as target:
            target.file.write(data)
            target.replace()

    @override
    def put_if_absent(self, key: str, data: bytes) -> bool:
        try:
            with self._writing(key) as target:
                target.file.write(data)
                target.link_or_create(data)
        except FileExistsError:
            return self.get_bytes(key) == data
        return True

    @override
    def get_file(self, key: str, path: Path, check: Check | None = None) -> str:
        try:
            opened = self._open(key)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise self._missing(key) from error
        except OSError as error:
            raise disk_error(error, self._path(key), self.purpose) from error
        with opened, written_whole(path) as file:
            return copy_stream(opened, file, check)

    @override
    def get_bytes(self, key: str) -> bytes | None:
        try:
            with self._open(key) as file:
                return small(file.read(SMALL_BYTES + 1), self.url(key), self.purpose)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        except OSError as error:
            raise disk_error(error, self._path(key), self.purpose) from error

    @override
    def list(self, prefix: str = "") -> list[ObjectInfo]:
        folder, _, start = prefix.rpartition("/")
        found = []
        for item in self._walk(folder):
            if item.levels[-1].startswith(_TEMPORARY) or not item.name.startswith(start):
                continue
            found.append(ObjectInfo(join_key(folder, item.name), item.size, item.modified))
            if len(found) > MOST_OBJECTS:
                raise too_many(self.purpose, self.url(folder))
        return sorted(found, key=lambda item: item.key)

    @override
    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._remove(self._levels(key))

    @override
    def abort_incomplete(self, prefix: str = "") -> int:
        folder = prefix.strip("/")
        left = [item.levels for item in self._walk(folder) if item.levels[-1].startswith(_TEMPORARY)]
        for levels in left:
            self._remove((*self._levels(folder), *levels) if folder else (*self._below, *levels))
        return len(left)

    @override
    def probe_write(self) -> None:
        # A fixed name, so that whatever a killed process leaves is removed by the next probe.
        self.put_bytes("probe", b"probe")
        self.delete(["probe"])

    @override
    def child(self, prefix: str) -> "FileStore":
        return FileStore(self._top, self.purpose, self._levels(prefix.strip("/")))

    @override
    def url(self, key: str) -> str:
        return self._path(key.strip("/")).as_uri() if key.strip("/") else self.uri

    def _levels(self, key: str) -> tuple[str, ...]:
        return (*self._below, *require_inside(key, self.purpose).split("/"))

    def _path(self, key: str) -> Path:
        return self.root / require_inside(key, self.purpose)

    def _open(self, key: str) -> BinaryIO:
        if self.purpose.follows_links:
            return open_followed(self._path(key), self.purpose.uri_field)
        return open_beneath(self._top, self._levels(key))

    def _walk(self, folder: str) -> Iterator[Found]:
        levels = self._levels(folder) if folder else self._below
        try:
            yield from Walk(self._top, levels, self.purpose.follows_links)
        except OSError as error:
            raise disk_error(error, self._top.joinpath(*levels), self.purpose) from error

    def _missing(self, key: str) -> ObjectMissingError:
        return ObjectMissingError(
            self.purpose.not_found, f"{self.purpose.uri_field}: there is no file {self.root / key}."
        )

    def _remove(self, levels: tuple[str, ...]) -> None:
        """Removes a file, and the folders that become empty: they would not exist in an object store."""
        *parents, name = levels
        try:
            with suppress(FileNotFoundError), folder_beneath(self._top, parents) as parent:
                os.unlink(name, dir_fd=parent)
            while len(parents) > len(self._below):
                *parents, name = parents
                with folder_beneath(self._top, parents) as parent:
                    os.rmdir(name, dir_fd=parent)
        except OSError as error:
            if error.errno in _NOT_EMPTY or isinstance(error, FileNotFoundError):
                return
            raise disk_error(error, self._top.joinpath(*levels), self.purpose) from error

    @contextmanager
    def _writing(self, key: str) -> Iterator["_Target"]:
        """A temporary file beside the target, removed unless it was renamed; translates errors."""
        *parents, name = self._levels(key)
        try:
            with _new_file(self._top, parents, name) as target:
                yield target
        except FileExistsError:
            raise
        except OSError as error:
            raise disk_error(error, self._path(key), self.purpose) from error


@dataclass(frozen=True)
class _Target:
    """A file that is being written under a temporary name in an open folder."""

    folder: int
    temporary: str
    name: str
    file: BinaryIO

    def replace(self) -> None:
        """Renames the finished file to its name, replacing an existing file."""
        _sync(self.file)
        os.replace(self.temporary, self.name, src_dir_fd=self.folder, dst_dir_fd=self.folder)

    def link_or_create(self, data: bytes) -> None:
        """Gives the finished file its name unless another file has it (then FileExistsError)."""
        _sync(self.file)
        try:
            os.link(self.temporary, self.name, src_dir_fd=self.folder, dst_dir_fd=self.folder, follow_symlinks=False)
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # Some network file systems have no hard links; O_EXCL is next best: it never replaces a file
            # either, and a torn manifest does not parse, so its readers skip it.
            with os.fdopen(_create_beneath(self.folder, self.name), "wb") as file:
                file.write(data)
                _sync(file)


@contextmanager
def _new_file(top: Path, parents: Sequence[str], name: str) -> Iterator[_Target]:
    temporary = f"{_TEMPORARY}{uuid.uuid4().hex}"
    with ExitStack() as stack:
        for last in (False, False, True):
            try:
                folder = stack.enter_context(folder_beneath(top, parents, create=True))
                descriptor = _create_beneath(folder, temporary)
                break
            except FileNotFoundError:
                # A delete by another attempt has just removed the empty folder.
                if last:
                    raise
            except FileExistsError as error:
                raise NotADirectoryError(errno.ENOTDIR, "a file is where a folder is needed", name) from error
        try:
            with os.fdopen(descriptor, "w+b") as file:
                yield _Target(folder, temporary, name, file)
            os.fsync(folder)  # after a power cut a manifest must not exist without its files
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)


def _create_beneath(folder: int, name: str) -> int:
    return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=folder)


def copy_stream(source: BinaryIO, target: BinaryIO, check: Check | None) -> str:
    """Copies a stream and returns the SHA-256 in hex of its content; one read, constant memory."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK_BYTES))
    while True:
        if check:
            check()
        count = source.readinto(buffer)  # type: ignore[attr-defined]  # every binary file has it, BinaryIO does not say
        if not count:
            return digest.hexdigest()
        digest.update(buffer[:count])
        target.write(buffer[:count])


@contextmanager
def written_whole(path: Path) -> Iterator[BufferedRandom]:
    """A local file for writing that gets its name only if the block succeeds; translates local disk errors."""
    temporary = path.parent / f"{_TEMPORARY}{uuid.uuid4().hex}"
    try:
        try:
            with _create(temporary) as file:
                yield file
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(error, path) from error


def _create(path: Path) -> BufferedRandom:
    """Opens a new file; creates its folder, again if a delete by another attempt has just removed the empty one."""
    for _ in range(3):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, "a file is where a folder is needed", str(path.parent)) from error
        try:
            return path.open("x+b")
        except FileNotFoundError:
            continue
    return path.open("x+b")


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
