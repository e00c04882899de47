"""Ends a run in which nothing moves: a stuck device, a dead file system, a lock that never opens."""

import faulthandler
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType


class Watchdog:
    """Calls ``hung`` when :meth:`beat` was not heard for ``seconds``, after dumping the stacks of all threads.

    ``hung`` runs in the watchdog's thread, since the main thread is the one that hangs: it must end the process.
    """

    def __init__(self, seconds: float, hung: Callable[[str], None]) -> None:
        self._seconds = seconds
        self._hung = hung
        self._last = time.monotonic()
        self._where = "start"
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def beat(self, where: str) -> None:
        """Something moved; ``where`` names the phase."""
        self._where = where
        self._last = time.monotonic()

    def __enter__(self) -> "Watchdog":
        self._last = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join(timeout=1.0)

    def _watch(self) -> None:
        pause = min(1.0, self._seconds / 4)
        while not self._stopped.wait(pause):
            silent = time.monotonic() - self._last
            if silent < self._seconds:
                continue
            faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
            self._hung(
                f"hung: nothing moved for {silent:.0f} seconds while {self._where} (spec.training.watchdogSeconds is "
                f"{self._seconds:g}); the stacks of all threads are in the log"
            )
            return
