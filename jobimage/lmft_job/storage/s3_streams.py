"""The ends of an S3 transfer: streams that hash what passes and can be stopped between chunks."""

import errno
import hashlib
import os
from collections.abc import Callable
from io import BufferedRandom
from typing import IO, Any

from botocore.parsers import ResponseParserError
from s3transfer.exceptions import CancelledError
from s3transfer.subscribers import BaseSubscriber

from lmft_job.storage.store import CHUNK_BYTES, Check


class HashingReader:
    """A stream without seek, which makes s3transfer read it once, in order; hashes what passes."""

    def __init__(self, file: IO[bytes], check: Check | None) -> None:
        self.digest = hashlib.sha256()
        self.stopped_by: BaseException | None = None
        self._file = file
        self._check = check

    def read(self, size: int = -1) -> bytes:
        """The next bytes, all of them by default."""
        _ask(self, self._check)
        data = self._file.read(size)
        self.digest.update(data)
        return data


class HashingFile:
    """A file whose parts come in any order; hashes it from the front as far as it is whole, while the rest comes.

    With seek on purpose: given a stream without it, s3transfer 0.19 waits for itself for ever once a file has more
    parts than may lie in memory. One thread writes.

    Args:
        file: to write.
        check: see ``Store.get_file``.
        size: bytes that the answers promise, once the first has come; what goes beyond, or stays behind, is a
            ``ResponseParserError``, and what the disk has no room for an OSError, before it is full.
    """

    def __init__(self, file: BufferedRandom, check: Check | None, size: Callable[[], int | None]) -> None:
        self.stopped_by: BaseException | None = None
        self._descriptor = file.fileno()
        self._check = check
        self._promised = size
        self._size: int | None = None
        self._offset = 0
        self._digest = hashlib.sha256()
        self._hashed = 0
        self._ahead: dict[int, int] = {}  # end by start of what lies beyond the first gap

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where the next write goes."""
        return self._offset

    def seek(self, offset: int) -> int:
        """Chooses where the next write goes, from the file's start."""
        self._offset = offset
        return offset

    def write(self, data: bytes) -> int:
        """Writes all of it, and hashes as far as the file is whole."""
        _ask(self, self._check)
        view, start = memoryview(data), self._offset
        self._require_room(start + len(view))
        while len(view):
            written = os.pwrite(self._descriptor, view, self._offset)
            self._offset += written
            view = view[written:]
        if start <= self._hashed < self._offset:  # a part that is fetched again may overlap what is hashed
            self._digest.update(memoryview(data)[self._hashed - start :])
            self._hashed = self._offset
            while end := self._ahead.pop(self._hashed, 0):
                self._hash_until(end)
        elif start > self._hashed:
            self._ahead[start] = max(self._offset, self._ahead.get(start, 0))
        return len(data)

    def hexdigest(self) -> str:
        """SHA-256 of the whole file, once all is written."""
        size = self._promised()
        if size is not None and size != self._hashed:
            raise ResponseParserError(f"answers of {self._hashed:,} bytes, of {size:,} that were promised")
        return self._digest.hexdigest()

    def _require_room(self, end: int) -> None:
        size = self._promised()
        if size is None:
            return
        if self._size is None:
            self._size = size
            about = os.fstatvfs(self._descriptor)
            if size > about.f_bavail * about.f_frsize:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if end > size:
            raise ResponseParserError(f"an answer of more than the {size:,} bytes that were promised")

    def _hash_until(self, end: int) -> None:
        while self._hashed < end:
            data = os.pread(self._descriptor, min(CHUNK_BYTES, end - self._hashed), self._hashed)
            self._digest.update(data)
            self._hashed += len(data)


class KnownSize(BaseSubscriber):
    """Tells s3transfer the size of a stream, so that it picks parts large enough for the largest files."""

    def __init__(self, size: int) -> None:
        self._size = size

    def on_queued(self, future: Any, **_: object) -> None:
        """Called by s3transfer before it starts."""
        future.meta.provide_transfer_size(self._size)


def _ask(stream: "HashingReader | HashingFile", check: Check | None) -> None:
    """Runs the caller's check in a transfer thread and remembers what it raised."""
    if check is None:
        return
    try:
        check()
    except BaseException as error:
        stream.stopped_by = error
        raise


def result_of(future: Any, stream: "HashingReader | HashingFile") -> None:
    """Waits for a transfer; when the caller's check stopped it, raises what the check raised."""
    try:
        future.result()
    except (Exception, CancelledError):
        if stream.stopped_by is not None:
            raise stream.stopped_by from None
        raise
