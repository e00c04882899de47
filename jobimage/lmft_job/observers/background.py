"""Threads beside the training: what they do may be slow or fail, and neither delays nor ends the run."""

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from lmft_api.wire.report import EvaluationRow
from lmft_job.observers.metrics import Lines


class Background(ABC):
    """A thread of its own; leaving it waits a bounded time.

    Args:
        name: of the thread.
        last_seconds: what it may take to end.
    """

    def __init__(self, name: str, last_seconds: float) -> None:
        self._last_seconds = last_seconds
        self._until = math.inf
        self._stop, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def _run(self) -> None:
        """The thread's work; returns soon after ``_stop`` is set."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(error)
        self._thread.join(self._seconds_left())

    def stop(self, error: BaseException | None = None) -> None:
        """Ask it to end; returns at once.

        Args:
            error: what ends the attempt; None when it is complete.
        """
        if not self._stop.is_set():
            self._until = time.monotonic() + self._last_seconds
        self._stop.set()
        self._wake.set()

    def _seconds_left(self) -> float:
        """Seconds that it may still take to end."""
        return max(0.0, self._until - time.monotonic())


More = Callable[[Lines, EvaluationRow | None], bytes]
"""Lines of ``metrics.jsonl`` that are new; takes what was taken already, and the figures before training."""


class Follower(Background):
    """Takes the lines of ``metrics.jsonl`` as they come; each follower is where it is."""

    def __init__(self, name: str, last_seconds: float) -> None:
        super().__init__(name, last_seconds)
        self.before: EvaluationRow | None = None
        """Figures of the model before training."""
        self._more: More | None = None

    def follow(self, more: More) -> None:
        """Training begins; ``more`` is called in the thread."""
        self._more = more

    def end(self) -> None:
        """The run's folder is about to be complete: return when no more is written there."""


class Followers:
    """All followers of a run, which end at the same time rather than one after another."""

    def __init__(self, followers: Sequence[Follower]) -> None:
        self._followers = tuple(followers)

    def __enter__(self) -> Self:
        for follower in self._followers:
            follower.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for follower in self._followers:
            follower.stop(error)
        for follower in self._followers:
            follower.__exit__(kind, error, trace)

    def measured(self, before: EvaluationRow) -> None:
        """The model was evaluated before training."""
        for follower in self._followers:
            follower.before = before

    def follow(self, more: More) -> None:
        """Training begins."""
        for follower in self._followers:
            follower.follow(more)

    def end(self) -> None:
        """Return when no more is written to the run's folder, which is about to be complete."""
        for follower in self._followers:
            follower.end()
