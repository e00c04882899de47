"""The time between SIGTERM and SIGKILL, and an end of the process that comes before the latter whatever happens.

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
    """How a pod spends its grace period.

    Attributes:
        seconds: from SIGTERM to SIGKILL.
    """

    seconds: float

    @property
    def for_uploads(self) -> float:
        """Seconds after the signal at which an upload is given up; what remains is for telling how it ended."""
        return max(self.seconds / 2, self.seconds - 15)

    @property
    def for_all(self) -> float:
        """Seconds after the signal at which the process ends, wherever it stands."""
        return max(self.seconds * 0.8, self.seconds - 5)


def end_in_time(grace: Grace, late: Callable[[], None]) -> None:
    """From now on a SIGTERM starts a clock, and ``late``, which must end the process, is called when it runs out.

    A thread waits for the signal on a pipe that the interpreter's C handler writes into, because the Python handler
    runs in the main thread alone, and not while that is inside a library that takes its time. Main thread only.
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
