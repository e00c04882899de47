"""Finds the rank that all others wait for: every step takes as long as its slowest rank, whoever looks at it.

Measured is a rank's own work, from the moment at which ranks have met to the one at which it waits for them again.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lmft_job.distributed.group import Group

WINDOW_STEPS = 10
"""Steps whose work is compared at once."""
PERSISTENT_WINDOWS = 3
"""Windows in a row in which the same rank has to be slow."""
SLOWER = 1.3
"""Times the median of all ranks."""
LEAST_SECONDS = 0.002
"""More than the median, a step; below it nobody would notice."""

Mark = Any
"""A moment: seconds, or an event of the device."""


class Pace:
    """Seconds of a rank's own work.

    Args:
        mark: notes a moment; seconds by default. On a GPU an event of its stream, since the host runs ahead of it.
        between: seconds between two marks; None while the device has not come there yet.
    """

    def __init__(
        self,
        mark: Callable[[], Mark] = time.perf_counter,
        between: Callable[[Mark, Mark], float | None] = lambda begin, end: end - begin,
    ) -> None:
        self._mark, self._between = mark, between
        self._begun: Mark | None = None
        self._spans: deque[tuple[Mark, Mark]] = deque()

    def met(self) -> None:
        """The ranks have met: what follows is this one's own work."""
        self._begun = self._mark()

    def waits(self) -> None:
        """This rank's work is done, and it waits for the others."""
        if self._begun is not None:
            self._spans.append((self._begun, self._mark()))
            self._begun = None

    def interrupted(self) -> None:
        """Something else than a step begins, such as an evaluation: it counts for nobody."""
        self._begun = None

    def take(self) -> float:
        """Seconds of work since the last call, as far as they are known."""
        total = 0.0
        while self._spans and (seconds := self._between(*self._spans[0])) is not None:
            total += seconds
            self._spans.popleft()
        return total


def device_pace() -> Pace:
    """The same by events of the current GPU."""
    import torch

    def mark() -> Mark:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def between(begin: Mark, end: Mark) -> float | None:
        return begin.elapsed_time(end) / 1000 if end.query() else None

    return Pace(mark, between)


class StragglerWatch:
    """Tells which rank is slower than the others, window by window; pure.

    Args:
        window: steps of a window.
    """

    def __init__(self, window: int = WINDOW_STEPS) -> None:
        self._window = window
        self._suspect: int | None = None
        self._windows = 0
        self._slower: list[float] = []

    def look(self, work: Sequence[float]) -> tuple[int, float] | None:
        """One more window.

        Args:
            work: seconds of own work in the window, by rank.

        Returns:
            The rank that was slowest in each of the last windows, and how many times the median it took; else None.
        """
        median = statistics.median(work)
        slowest = max(range(len(work)), key=lambda rank: work[rank])
        # Of two ranks the median lies between them: the other one is what it is compared with.
        usual = min(work) if len(work) == 2 else median
        slow = work[slowest] > SLOWER * usual and work[slowest] - usual > LEAST_SECONDS * self._window
        if not slow or slowest != self._suspect:
            self._windows, self._slower = 0, []
        self._suspect = slowest if slow else None
        if not slow:
            return None
        self._windows += 1
        self._slower.append(work[slowest] / usual if usual > 0 else float("inf"))
        if self._windows < PERSISTENT_WINDOWS:
            return None
        return slowest, statistics.median(self._slower[-PERSISTENT_WINDOWS:])


def straggler_words(rank: int, node: str, times: float) -> str:
    """The rank for people, at most 64 characters."""
    factor = f" ({min(times, 99):.1f} times the median)"
    return f"rank {rank}{f' on {node}' if node else ''}"[: 64 - len(factor)] + factor


class Stragglers:
    """Compares the ranks' own work every few steps; all ranks call it alike, and the first tells.

    Args:
        group: the ranks.
        node: name of this one's node.
        tell: called by rank 0 with the rank that every step waits for, and with "" once there is none.
        pace: this rank's work.
    """

    def __init__(self, group: Group, node: str, tell: Callable[[str], None], pace: Pace | None = None) -> None:
        self.pace = pace or Pace()
        self._group, self._node, self._tell = group, node, tell
        self._watch = StragglerWatch()
        self._nodes: list[str] | None = None
        self._told = ""

    def step(self, step: int) -> None:
        """A step is done."""
        if self._group.world.alone or step % WINDOW_STEPS:
            return
        if self._nodes is None:
            self._nodes = [name.decode(errors="replace") for name in self._group.gather_bytes(self._node.encode())]
        work = [float(seconds[0]) for seconds in self._group.gather(np.array([self.pace.take()]))]
        found = self._watch.look(work)
        rank = "" if found is None else straggler_words(found[0], self._nodes[found[0]], found[1])
        if self._group.world.main and bool(rank) != bool(self._told):
            self._told = rank
            self._tell(rank)
