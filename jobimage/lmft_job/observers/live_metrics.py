"""``metrics.jsonl`` in the run's folder while it trains, written from a thread: slow storage does not delay the run."""

import logging
from collections.abc import Callable
from pathlib import Path

from typing_extensions import override

from lmft_api.wire.layout import METRICS
from lmft_job.errors import JobError
from lmft_job.observers.background import Follower
from lmft_job.observers.metrics import Lines
from lmft_job.storage import Store

log = logging.getLogger(__name__)

_FOLDER_SECONDS, _BUCKET_SECONDS = 2.0, 30.0
_BYTES_PER_SECOND = 256 * 1024
"""The whole file is stored each time: one of a million steps every ten minutes."""
_LAST_SECONDS = 5.0
"""An attempt that ends early leaves its last steps, if storage takes them at once."""


def pause_after(size: int, *, in_bucket: bool) -> float:
    """Seconds until the file is stored again, by its size in bytes."""
    return max(_BUCKET_SECONDS if in_bucket else _FOLDER_SECONDS, size / _BYTES_PER_SECOND)


class LiveMetrics(Follower):
    """Stores the file again and again; enter it when the attempt begins. A later attempt starts from its checkpoint.

    Nothing fails because of it: the complete file is stored when the run is published.

    Args:
        store: rooted at the run's folder.
        folder: scratch space.
        require: raises JobError once a later attempt has begun, which then writes the file.
    """

    def __init__(self, store: Store, folder: Path, require: Callable[[], None]) -> None:
        super().__init__("metrics", _LAST_SECONDS)
        self._store, self._require = store, require
        self._path = folder / METRICS
        self._in_bucket = not store.uri.startswith("file:")
        self._lines, self._size, self._unstored = Lines(), 0, False

    @override
    def end(self) -> None:
        self.stop()
        if self._thread.is_alive():
            self._thread.join()

    @override
    def _run(self) -> None:
        ended = False
        while not ended:
            ended = self._stop.wait(pause_after(self._size, in_bucket=self._in_bucket))
            try:
                self._write()
            except (JobError, OSError) as error:
                log.info("%s is not stored yet: %s", METRICS, error)

    def _write(self) -> None:
        lines = self._more(self._lines, self.before) if self._more is not None else b""
        if lines:
            with self._path.open("ab" if self._size else "wb") as file:
                file.write(lines)
            self._size += len(lines)
            self._unstored = True
        if self._unstored:
            self._require()
            self._store.put_file(METRICS, self._path)
            self._unstored = False
