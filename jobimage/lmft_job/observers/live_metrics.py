"""``metrics.jsonl`` in the run's folder while it trains, written from a thread: slow storage does not delay the run."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from lmft_api.wire.layout import METRICS
from lmft_api.wire.report import EvaluationRow
from lmft_job.errors import JobError
from lmft_job.observers.metrics import Lines
from lmft_job.storage import Store

log = logging.getLogger(__name__)

_FOLDER_SECONDS, _BUCKET_SECONDS = 2.0, 30.0
_BYTES_PER_SECOND = 256 * 1024
"""The whole file is stored each time: one of a million steps every ten minutes."""
_LAST_SECONDS = 5.0

More = Callable[[Lines, EvaluationRow | None], bytes]
"""Lines that are new; takes what was written already, and the figures before training."""


def pause_after(size: int, *, in_bucket: bool) -> float:
    """Seconds until the file is stored again, by its size in bytes."""
    return max(_BUCKET_SECONDS if in_bucket else _FOLDER_SECONDS, size / _BYTES_PER_SECOND)


class LiveMetrics:
    """Stores the file again and again; enter it when the attempt begins. A later attempt starts from its checkpoint.

    Nothing fails because of it: the complete file is stored when the run is published.

    Args:
        store: rooted at the run's folder.
        folder: scratch space.
        require: raises JobError once a later attempt has begun, which then writes the file.
    """

    def __init__(self, store: Store, folder: Path, require: Callable[[], None]) -> None:
        self.before: EvaluationRow | None = None
        """Figures of the model before training."""
        self._store, self._require = store, require
        self._path = folder / METRICS
        self._in_bucket = not store.uri.startswith("file:")
        self._more: More | None = None
        self._lines, self._size, self._unstored = Lines(), 0, False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="metrics", daemon=True)

    def __enter__(self) -> "LiveMetrics":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An attempt that ends early leaves its last steps, if storage takes them at once.
        self._stop.set()
        self._thread.join(timeout=_LAST_SECONDS)

    def follow(self, more: More) -> None:
        """Training begins; ``more`` is called in the thread."""
        self._more = more

    def end(self) -> None:
        """Return when nothing more is written: the complete file is about to be stored."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _keep(self) -> None:
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
