"""Streams for S3 transfers that hash the data and can be stopped between chunks."""

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
    """A stream without seek, which makes s3transfer read it once, in order; hashes the data."""

    def __init__(self, file: IO[bytes], check: Check | None) -> None:
        self.digest = hashlib.sha256()
        self.stopped_by: BaseException | None = None
        self._file = file
        self._check = check

    def read(self, size: int = -1) -> bytes:
        """The next bytes; all of them by default."""
        _ask(self, self._check)
        data = self._file.read(size)
        self.digest.update(data)
        return data


class HashingFile:
    """A file whose parts arrive in any order; hashes its complete beginning while the rest arrives.

    Seekable on purpose: with a stream that is not, s3transfer 0.19 deadlocks once a file has more parts than may be in
    memory. Only one thread writes.

    Args:
        file: file to write.
        check: see ``Store.get_file``.
        size: size in bytes according to the responses, once the first has arrived; more or fewer bytes raise
            ``ResponseParserError``, and too little disk space raises OSError, before the disk is full.
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
        self._ahead: dict[int, int] = {}  # end by start of ranges beyond the first gap

    def seekable(self) -> bool:
        """Always True."""
        return True

    def tell(self) -> int:
        """Offset of the next write."""
        return self._offset

    def seek(self, offset: int) -> int:
        """Sets the offset of the next write, from the file's start."""
        self._offset = offset
        return offset

    def write(self, data: bytes) -> int:
        """Writes all of it, and hashes as far as the file is complete."""
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
    """Passes the size of a stream to s3transfer, so that it chooses parts large enough for the largest files."""

    def __init__(self, size: int) -> None:
        self._size = size

    def on_queued(self, future: Any, **_: object) -> None:
        """Called by s3transfer before it starts."""
        future.meta.provide_transfer_size(self._size)


def _ask(stream: "HashingReader | HashingFile", check: Check | None) -> None:
    """Runs the caller's check in a transfer thread and stores its exception."""
    if check is None:
        return
    try:
        check()
    except BaseException as error:
        stream.stopped_by = error
        raise


def result_of(future: Any, stream: "HashingReader | HashingFile") -> None:
    """Waits for a transfer; if the caller's check stopped it, raises the exception of the check."""
    try:
        future.result()
    except (Exception, CancelledError):
        if stream.stopped_by is not None:
            raise stream.stopped_by from None
        raise
