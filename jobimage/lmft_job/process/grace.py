"""The time between SIGTERM and SIGKILL, and an exit of the process before the latter in every case.

Imports nothing heavy.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Grace:
    """Deadlines within a pod's grace period.

    Attributes:
        seconds: from SIGTERM to SIGKILL.
    """

    seconds: float

    @property
    def for_uploads(self) -> float:
        """Seconds after the signal at which an upload is abandoned; the rest is for reporting the result."""
        return max(self.seconds / 2, self.seconds - 15)

    @property
    def for_all(self) -> float:
        """Seconds after the signal at which the process exits, whatever it is doing."""
        return max(self.seconds * 0.8, self.seconds - 5)


def end_in_time(grace: Grace, late: Callable[[], None]) -> None:
    """From now on a SIGTERM starts a timer, and ``late``, which must end the process, is called when it expires.

    A thread waits for the signal on a pipe that the interpreter's C handler writes to, because the Python handler
    only runs in the main thread, and not while that is inside a slow library call. Main thread only.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def wait() -> None:
        while os.read(read, 1)[0] != signal.SIGTERM:
            continue
        time.sleep(grace.for_all)
        late()

    threading.Thread(target=wait, name="grace", daemon=True).start()
