"""SIGTERM, Ctrl-C, a closed terminal: a stop requested at any moment, and carried out when it loses nothing.

Imports nothing heavy: the handler is installed before torch is imported, since Python as PID 1 ignores SIGTERM until
then.

Outside :meth:`Interrupt.deferred` the stop is raised at once in the main thread (a download, tokenising, an
import). Inside, the request is only recorded, and the training loop ends its step, saves and raises by itself.
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
"""A progress bar has hidden the cursor, and is on the current line."""
_ELSEWHERE = "elsewhere"
_OURS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


class StopNow(BaseException):
    """Raised by the signal handler itself. Not an Exception, so that no library's broad ``except`` catches it."""


class Interrupt:
    """Requests to stop; the entry of a process makes one, installs it and passes it on.

    Signal handlers belong to the process and are called in its main thread: install one only.
    """

    def __init__(self) -> None:
        self.requested = False
        self.signal_name = ""
        self._deferrals = 0
        self._ctrl_c = 0
        self._listeners: list[Callable[[], None]] = []

    def install(self) -> None:
        """Handle SIGTERM, SIGINT and SIGHUP, including a pending one (see :func:`replace_process`).

        Signals that are ignored already, such as SIGHUP under ``nohup``, stay ignored.
        """
        for number in _OURS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _OURS)

    def on_request(self, listener: Callable[[], None]) -> None:
        """Call a listener in the signal handler when a stop is requested: it must be fast, and take no locks."""
        self._listeners.append(listener)
        if self.requested:
            listener()

    def adopt(self) -> None:
        """Another process of the run was asked to stop, so this one stops too."""
        if not self.requested:
            self.requested, self.signal_name = True, _ELSEWHERE
            for listener in self._listeners:
                listener()

    def check(self) -> None:
        """Raise InterruptedRunError if a stop was requested."""
        if self.requested:
            raise InterruptedRunError(self.words)

    @property
    def words(self) -> str:
        """What happened, for people."""
        if self.signal_name == _ELSEWHERE:
            return "stopped with another process of the run, which was asked to"
        known = {"SIGINT": "stopped by Ctrl-C", "SIGHUP": "stopped because its terminal was closed (SIGHUP)"}
        return known.get(self.signal_name, f"stopped by {self.signal_name or 'request'}")

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """While inside, a signal is only recorded: the code inside checks ``requested`` and ends by itself."""
        self._deferrals += 1
        try:
            yield
        finally:
            self._deferrals -= 1

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first = not self.requested
        self.requested = True
        if self.signal_name in ("", _ELSEWHERE):
            self.signal_name = signal.Signals(number).name
        if number == signal.SIGINT:
            self._ctrl_c += 1
            if self._ctrl_c > 1:
                # Pressing Ctrl-C twice ends at once; storage stays consistent by protocol.
                if os.isatty(1):
                    os.write(1, SHOW_CURSOR)
                os._exit(SECOND_CTRL_C_EXIT)
        if first:
            for listener in self._listeners:
                listener()
        if first and not self._deferrals:
            raise StopNow(self.words)


def replace_process(interrupt: Interrupt, module: str, arguments: Sequence[str]) -> None:
    """Replace this process by a new one that runs a module of this package; raises if a stop was requested instead.

    Signals stay pending meanwhile: until the new process has its handlers they would kill it, or be lost as PID 1.
    """
    interrupt.check()
    sys.stdout.flush()
    sys.stderr.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, _OURS)
    # -P: no module is imported from the current folder, which others may write to.
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])  # noqa: S606 - this program again
