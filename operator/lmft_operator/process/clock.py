"""The API server's time, kept by a clock that does not jump.

Times in objects are those of the API server and the nodes, and a run is deleted, stopped or retried by them. The
machine's own clock may be set by a day, rightly or wrongly, at any moment; deadlines and times to live would then have
passed at once. So the wall clock is read once, at the start, and time advances by the monotonic clock from there. Each
response of the API server gives the time there: the first one sets the offset of our clock, and a later one that
differs counts only once it has differed for a while.
"""

import logging
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

logger = logging.getLogger(__name__)
TOLERANCE_SECONDS = 2.0
"""Tolerance, seconds: a Date header has whole seconds, and a response takes its time."""
DOUBT_SECONDS = 300.0
"""Seconds for which the API server must give another time before it is accepted."""
LOOK_SECONDS = 1.0
"""Seconds between two responses whose dates are read."""


class Clock:
    """Gives UNIX seconds when called.

    Args:
        wall: this machine's UNIX seconds.
        steady: monotonic seconds.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        self._offset = wall() - steady()
        self._settled = False
        self._looked = float("-inf")
        self._differs: float | None = None

    def __call__(self) -> float:
        """The current time, UNIX seconds."""
        return self._steady() + self._offset

    def adjust(self, date: str | None) -> None:
        """Record the ``Date`` header of a response; an unreadable one is ignored."""
        now = self._steady()
        if date is None or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        try:
            there = parsedate_to_datetime(date).timestamp() + 0.5  # the middle of that second
        except (ValueError, OverflowError):
            return
        difference = there - self()
        if abs(difference) <= TOLERANCE_SECONDS:
            self._settled, self._differs = True, None
            return
        self._differs = now if self._differs is None else self._differs
        if self._settled and now - self._differs < DOUBT_SECONDS:
            return
        logger.warning("the API server's clock is %.0f s ahead of the one used so far; using it", difference)
        self._offset += difference
        self._settled, self._differs = True, None
