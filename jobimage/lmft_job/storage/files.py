"""file:// storage: a folder of plain files, with the same promises as an object store.

A file appears whole or not at all: it is written under a temporary name, flushed to the disk and renamed.
"""

import errno
import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path
from typing import BinaryIO

from typing_extensions import override

from lmft_job.storage.base import (
    CHUNK_BYTES,
    Check,
    ObjectInfo,
    ObjectMissingError,
    Purpose,
    Store,
    disk_error,
    join_key,
    require_inside,
)

_TEMPORARY = ".lmft-part-"
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV, errno.ENOSYS}


class FileStore(Store):
    """See ``lmft_job.storage.Store``."""

    def __init__(self, root: Path, purpose: Purpose) -> None:
        self.root = root
        self.purpose = purpose
        self.uri = root.as_uri()

    @override
    def put_file(self, key: str, path: Path, check: Check | None = None) -> str:
        target = self._path(key)
        try:
            opened = path.open("rb")
        except OSError as error:
            raise disk_error(error, path) from error
        with opened as source, self._writing(target) as (file, temporary):
            digest = copy_stream(source, file, check)
            _sync(file)
            os.replace(temporary, target)
        return digest

    @override
    def put_bytes(self, key: str, data: bytes) -> None:
        target = self._path(key)
        with self._writing(target) as (file, temporary):
            file.write(data)
            _sync(file)
            os.replace(temporary, target)

    @override
    def put_if_absent(self, key: str, data: bytes) -> bool:
        target = self._path(key)
        try:
            with self._writing(target) as (file, temporary):
                file.write(data)
                _sync(file)
                _link_or_create(temporary, target, data)
        except FileExistsError:
            return self.get_bytes(key) == data
        return True

    @override
    def get_file(self, key: str, path: Path, check: Check | None = None) -> str:
        source = self._path(key)
        try:
            opened = source.open("rb")
        except (FileNotFoundError, IsADirectoryError) as error:
            raise self._missing(key) from error
        except OSError as error:
            raise disk_error(error, source, self.purpose) from error
        with opened, written_whole(path) as file:
            return copy_stream(opened, file, check)

    @override
    def get_bytes(self, key: str) -> bytes | None:
        path = self._path(key)
        try:
            return path.read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        except OSError as error:
            raise disk_error(error, path, self.purpose) from error

    @override
    def list(self, prefix: str = "") -> list[ObjectInfo]:
        folder = prefix.rpartition("/")[0]
        top = self._path(folder) if folder else self.root
        found = []
        try:
            for path, name in _walk(top):
                if path.is_symlink() and not path.exists():
                    continue  # it leads nowhere, and looking again would not help
                key = join_key(folder, name)
                if key.startswith(prefix) and not path.name.startswith(_TEMPORARY):
                    found.append(ObjectInfo(key, path.stat().st_size))
        except FileNotFoundError:
            # A file went while we looked (a prune by an attempt before us): look again, the rest is still there.
            return self.list(prefix)
        except OSError as error:
            raise disk_error(error, top, self.purpose) from error
        return sorted(found, key=lambda item: item.key)

    @override
    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            path = self._path(key)
            try:
                path.unlink(missing_ok=True)
                self._remove_empty(path.parent)
            except OSError as error:
                raise disk_error(error, path, self.purpose) from error

    @override
    def abort_incomplete(self, prefix: str = "") -> int:
        top = self._path(prefix.rstrip("/")) if prefix.strip("/") else self.root
        try:
            left = [path for path, _ in _walk(top) if path.name.startswith(_TEMPORARY)]
            for path in left:
                path.unlink(missing_ok=True)
                self._remove_empty(path.parent)
        except OSError as error:
            raise disk_error(error, top, self.purpose) from error
        return len(left)

    @override
    def probe_write(self) -> None:
        # One name, so that whoever was killed between the two leaves no more than the next one removes.
        self.put_bytes("probe", b"probe")
        self.delete(["probe"])

    @override
    def child(self, prefix: str) -> "FileStore":
        return FileStore(self._path(prefix.strip("/")), self.purpose)

    @override
    def url(self, key: str) -> str:
        return self._path(key.strip("/")).as_uri() if key.strip("/") else self.uri

    def _path(self, key: str) -> Path:
        return self.root / require_inside(key, self.purpose)

    def _missing(self, key: str) -> ObjectMissingError:
        return ObjectMissingError(
            self.purpose.not_found, f"{self.purpose.uri_field}: there is no file {self.root / key}."
        )

    def _remove_empty(self, folder: Path) -> None:
        """Folders do not exist in an object store: those that hold nothing any more go, up to the root."""
        while folder != self.root and folder.is_relative_to(self.root):
            try:
                folder.rmdir()
            except OSError:  # not empty, or gone already: either way there is no more to do here
                return
            folder = folder.parent

    @contextmanager
    def _writing(self, target: Path) -> Iterator[tuple[BinaryIO, Path]]:
        """A temporary file beside the target, removed unless it was renamed; errors in words."""
        temporary = target.parent / f"{_TEMPORARY}{uuid.uuid4().hex}"
        try:
            try:
                file = _create(temporary)
                with file:
                    yield file, temporary
                _sync_folder(target.parent)
            finally:
                temporary.unlink(missing_ok=True)
        except FileExistsError:
            raise
        except OSError as error:
            raise disk_error(error, target, self.purpose) from error


def copy_stream(source: BinaryIO, target: BinaryIO, check: Check | None) -> str:
    """Copies a stream and returns the SHA-256 in hex of what passed; one read, flat memory."""
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
    """A local file to write that takes its name only when the block ends well; local disk errors in words."""
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
    """Opens a new file; makes its folder, again if a delete by another attempt has just removed the empty one."""
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


def _link_or_create(temporary: Path, target: Path, data: bytes) -> None:
    """Gives a finished file its name unless another has it (then FileExistsError)."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Some network file systems have no hard links; O_EXCL is next best: absent-or-ours still holds, and a torn
        # manifest does not parse, so its readers pass it over.
        with target.open("xb") as file:
            file.write(data)
            _sync(file)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable, so that a manifest never outlives a power cut that its files did not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _walk(top: Path) -> Iterator[tuple[Path, str]]:
    """All files below a folder with their '/'-separated names; nothing when the folder is not there.

    Raises:
        OSError: a folder that is there and cannot be read: what it holds is not known, which is not nothing.
    """

    def failed(error: OSError) -> None:
        if error.errno not in _GONE:
            raise error

    for folder, _, names in os.walk(top, onerror=failed, followlinks=True):
        for name in names:
            path = Path(folder, name)
            yield path, path.relative_to(top).as_posix()
