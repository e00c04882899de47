"""What time it is: the API server's time, kept by a clock that does not jump.

Times in objects are the API server's and the nodes', and a run is deleted, stopped or tried again by them. The clock of
the operator's own machine may be set right, or wrong, by a day at any moment; deadlines and times to live would then be
over at once. So it is looked at once, at the start, and time passes by the steady clock from there. Each answer of the
API server says what time it is there: the first one settles by how much ours was wrong, and a later one that differs
counts only when it has differed for a while.
"""

import logging
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

logger = logging.getLogger(__name__)
TOLERANCE_SECONDS = 2.0
"""A date has whole seconds, and an answer takes its time."""
DOUBT_SECONDS = 300.0
"""How long the API server has to say another time before it is believed."""
LOOK_SECONDS = 1.0
"""Between two answers that are looked at."""


class Clock:
    """UNIX seconds, when called.

    Args:
        wall: this machine's own UNIX seconds.
        steady: seconds that never go back.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        self._offset = wall() - steady()
        self._settled = False
        self._looked = float("-inf")
        self._differs: float | None = None

    def __call__(self) -> float:
        """The time."""
        return self._steady() + self._offset

    def heard(self, date: str | None) -> None:
        """An answer's header ``Date``; one that cannot be read says nothing."""
        now = self._steady()
        if date is None or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        try:
            there = parsedate_to_datetime(date).timestamp() + 0.5  # between this second and the next
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
