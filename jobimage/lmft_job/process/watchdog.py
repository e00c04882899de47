"""Ends a run that makes no progress: a stuck device, a hung file system, a deadlock."""

import faulthandler
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType

Pause = Callable[[], AbstractContextManager[None]]
"""Makes the context of a library call that may take hours without reporting progress: :meth:`Watchdog.paused`."""


class Watchdog:
    """Calls ``hung`` when :meth:`beat` was not called for a while, after dumping the stacks of all threads.

    ``hung`` runs in the watchdog's thread, since the main thread is the one that hangs: it must end the process.

    Args:
        seconds: its patience once :meth:`steps_begin` was called.
        hung: called with the message for people.
        before: its patience until then, since library calls that report no progress may take longer than a step; never
            less than ``seconds``.
        clock: returns seconds; replaced in tests.
    """

    def __init__(
        self,
        seconds: float,
        hung: Callable[[str], None],
        before: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._steps = seconds
        self._seconds = max(seconds, before)
        self._hung = hung
        self._clock = clock
        self._where = "checking and loading"
        self._pauses = 0
        self._last = self._clock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def beat(self, where: str | None = None) -> None:
        """Report progress; ``where`` names the phase, if it is a new one."""
        self._where = where or self._where
        self._last = self._clock()

    def steps_begin(self, where: str) -> None:
        """From now on every step, batch and prompt is reported."""
        self.beat(where)
        self._seconds = self._steps

    def __enter__(self) -> "Watchdog":
        self._last = self._clock()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join(timeout=1.0)

    def overdue(self) -> str | None:
        """The message if there was no progress for too long; else None."""
        if self._pauses:  # checked first: it calls beat before it resumes watching
            return None
        silent = self._clock() - self._last
        if silent < self._seconds:
            return None
        return (
            f"hung: nothing moved for {silent:.0f} seconds while {self._where} (spec.training.watchdogSeconds is "
            f"{self._steps:g}); the stacks of all threads are in the log. If a step rightly takes that long, raise "
            "watchdogSeconds in a new run; otherwise look there for the device or file system that does not answer"
        )

    @contextmanager
    def paused(self) -> Iterator[None]:
        """It does not watch inside: for a library call that reports no progress, such as the hub client's."""
        self._pauses += 1
        try:
            yield
        finally:
            self.beat()
            self._pauses -= 1

    def _watch(self) -> None:
        while not self._stopped.wait(min(1.0, self._seconds / 4)):
            if words := self.overdue():
                faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
                self._hung(words)
                return
