"""How far an attempt came, told to storage now and then: the next one can say how many steps were lost.

That a later attempt has begun is told here too, and whoever sees it leaves alone what all attempts of a run share.
"""

import json
import logging
import re
import threading
import time
from collections.abc import Callable
from types import TracebackType

from lmft_job.errors import InterruptedRunError, JobError
from lmft_job.notes import read_note
from lmft_job.storage import Store

log = logging.getLogger(__name__)

_FOLDER = "attempts/"
_NAME = re.compile(rf"{_FOLDER}attempt-(\d+)\.json")
_PAUSE_SECONDS = 5.0


def known_attempts(store: Store) -> dict[int, int]:
    """Newest known step of each attempt so far, by number."""
    attempts = {}
    for number in _numbers(store):
        step = read_note(store, _key(number), lambda note: int(note["step"]))
        if step is not None:
            attempts[number] = step
    return attempts


def begin(store: Store, attempt: int) -> None:
    """Let it be seen that this attempt has begun; what is known of its steps already stays."""
    store.put_if_absent(_key(attempt), _note(attempt, 0))


class Fence:
    """Ends an attempt once a later one has begun: what both would write is the later one's.

    Args:
        store: rooted at the run's folder.
        attempt: our own.
        pause: seconds for which an answer of the storage holds.
        clock: seconds; another one in tests.
    """

    def __init__(
        self, store: Store, attempt: int, pause: float = _PAUSE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._attempt = attempt
        self._pause = pause
        self._clock = clock
        self._looked: float | None = None

    def check(self) -> None:
        """Ask storage, unless it was asked just now; for loops.

        Raises:
            InterruptedRunError: a later attempt has begun.
        """
        if self._looked is None or self._clock() - self._looked >= self._pause:
            self.require()

    def require(self) -> None:
        """Ask storage now.

        Raises:
            InterruptedRunError: a later attempt has begun.
        """
        self._looked = self._clock()
        newest = max(_numbers(self._store), default=0)
        if newest > self._attempt:
            raise InterruptedRunError(
                f"attempt {newest} of this run has begun; attempt {self._attempt} leaves model and report to it"
            )


class Journal:
    """Writes the attempt's step from a thread; a storage that is slow or away costs the run nothing."""

    def __init__(self, store: Store, attempt: int, pause: float = _PAUSE_SECONDS) -> None:
        self.step = 0
        self._store = store
        self._attempt = attempt
        self._pause = pause
        self._written = -1
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="journal", daemon=True)

    def __enter__(self) -> "Journal":
        self.write()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=1.0)

    def _keep(self) -> None:
        while not self._stop.wait(self._pause):
            try:
                self.write()
            except JobError as error:
                # Only the count of lost steps depends on it; checkpoints tell people of their own troubles.
                log.info("the step could not be noted: %s", error)

    def write(self) -> None:
        """Tell storage now, unless it knows."""
        step = self.step
        if step != self._written:
            self._store.put_bytes(_key(self._attempt), _note(self._attempt, step))
            self._written = step


def _numbers(store: Store) -> list[int]:
    """Numbers of the attempts that have begun."""
    names = (_NAME.fullmatch(item.key) for item in store.list(_FOLDER))
    return [int(name[1]) for name in names if name]


def _key(attempt: int) -> str:
    return f"{_FOLDER}attempt-{attempt:04d}.json"


def _note(attempt: int, step: int) -> bytes:
    return json.dumps({"attempt": attempt, "step": step}).encode()
