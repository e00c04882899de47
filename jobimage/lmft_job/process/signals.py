"""SIGTERM, Ctrl-C, a closed terminal: a stop asked for at any moment, and honoured at one that loses nothing.

Imports nothing heavy: the handler stands before torch is imported, since Python as PID 1 ignores SIGTERM until then.

Outside :meth:`Interrupt.deferred` the stop is raised where the main thread stands (a download, tokenising, an
import). Inside, only the wish is noted, and the training loop ends its step, saves and raises by itself.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from lmft_job.errors import InterruptedRunError

SECOND_CTRL_C_EXIT = 130
SHOW_CURSOR = b"\x1b[?25h\r\n"
"""A bar has hidden the cursor, and stands on its line."""
_OURS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


class StopNow(BaseException):
    """Raised by the signal handler itself. Not an Exception, so that no library's broad ``except`` swallows it."""


class Interrupt:
    """The wish to stop. One for each process; the signal handler belongs to the main thread."""

    def __init__(self) -> None:
        self.requested = False
        self.signal_name = ""
        self._deferrals = 0
        self._ctrl_c = 0
        self._listeners: list[Callable[[], None]] = []

    def install(self) -> None:
        """Take over SIGTERM, SIGINT and SIGHUP, one that waits included (see :func:`replace_process`).

        What is ignored already, as SIGHUP under ``nohup``, stays so.
        """
        for number in _OURS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _OURS)

    def on_request(self, listener: Callable[[], None]) -> None:
        """Call a listener when a stop is asked for, in the signal handler: it must be quick, and lock nothing."""
        self._listeners.append(listener)
        if self.requested:
            listener()

    def check(self) -> None:
        """Raise InterruptedRunError when a stop was asked for."""
        if self.requested:
            raise InterruptedRunError(self.words)

    @property
    def words(self) -> str:
        """What happened, for people."""
        known = {"SIGINT": "stopped by Ctrl-C", "SIGHUP": "stopped because its terminal was closed (SIGHUP)"}
        return known.get(self.signal_name, f"stopped by {self.signal_name or 'request'}")

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """While inside, a signal is only noted: the code inside looks at ``requested`` and ends tidily."""
        self._deferrals += 1
        try:
            yield
        finally:
            self._deferrals -= 1

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first = not self.requested
        self.requested = True
        self.signal_name = self.signal_name or signal.Signals(number).name
        if number == signal.SIGINT:
            self._ctrl_c += 1
            if self._ctrl_c > 1:
                # A person who presses twice wants the prompt back; what is in storage stays whole by protocol.
                if os.isatty(1):
                    os.write(1, SHOW_CURSOR)
                os._exit(SECOND_CTRL_C_EXIT)
        if first:
            for listener in self._listeners:
                listener()
        if first and not self._deferrals:
            raise StopNow(self.words)


INTERRUPT = Interrupt()
"""The process's own."""


def replace_process(module: str, arguments: Sequence[str]) -> None:
    """Become a fresh process that runs a module of ours; raises when a stop was asked for instead.

    Signals wait across it: until the new process has its handlers they would kill it, or as PID 1 be lost.
    """
    INTERRUPT.check()
    sys.stdout.flush()
    sys.stderr.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, _OURS)
    # -P: no module is imported from the folder that the process stands in, which others may write to.
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])  # noqa: S606 - this program again
