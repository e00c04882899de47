"""The thread that follows a run's metrics and sends them to one tracker.

The buffer is the run's own history, which is in checkpoints and in ``metrics.jsonl``: a tracker that is away misses
nothing, and costs nothing. Where to continue is asked of the tracker itself, so that no step is there twice.
"""

import time
from collections.abc import Callable

from typing_extensions import override

from lmft_api.text.shown import one_line
from lmft_api.text.wording import shorten
from lmft_job.observers.background import Follower, More
from lmft_job.observers.metrics import Lines
from lmft_job.trackers.points import Point, Position, points
from lmft_job.trackers.tracker import Tracker

LAST_SECONDS, LAST_SECONDS_OF_A_STOP = 30.0, 5.0
"""How long the end of an attempt waits for a tracker; of one that is stopped the node may be about to go."""
LONGEST_PAUSE_SECONDS = 60.0
_LAST_PAUSE_SECONDS = 1.0
_STEPS_AT_ONCE = 2000
_LONGEST_MESSAGE = 300


class Sender(Follower):
    """Sends to one tracker, from when training begins.

    Args:
        tracker: where to.
        say: called when nothing gets through, when it does again, and at the end with what was not sent.
        later: what a person does, at the end of a complete run, about what was not sent.

    Attributes:
        unsent: at the end, what was not sent and what to do about it: a sentence; empty when all was.
    """

    def __init__(self, tracker: Tracker, say: Callable[[str], None], later: str) -> None:
        super().__init__(tracker.name, LAST_SECONDS)
        self._tracker, self._say, self._later = tracker, say, later
        self._there: Position | None = None
        self._lines = Lines(most=_STEPS_AT_ONCE)
        self._waiting: list[Point] = []
        self._problem: str | None = None
        self._error: BaseException | None = None
        self._closed = False
        self.unsent = ""

    @override
    def stop(self, error: BaseException | None = None) -> None:
        if not self._stop.is_set():
            self._error = error
            self._last_seconds = LAST_SECONDS if error is None else LAST_SECONDS_OF_A_STOP
        super().stop(error)

    @override
    def end(self) -> None:
        if self._tracker.in_folder:
            self.stop()
            self._thread.join(self._seconds_left())

    @override
    def __exit__(self, kind, error, trace) -> None:  # type: ignore[no-untyped-def]
        super().__exit__(kind, error, trace)
        if not self._closed and self._more is not None and (left := self._left(self._more)):
            why = f" ({self._problem})" if self._problem else ""
            later = self._later if self._error is None else "the attempt that resumes the run sends it"
            self.unsent = f"{self._tracker.name} did not take all in time{why}: {left} not sent; {later}."
            self._say(self.unsent.removesuffix("."))

    @override
    def _run(self) -> None:
        failures = 0
        while True:
            pause = self._tracker.pause() if not failures else min(2.0**failures, LONGEST_PAUSE_SECONDS)
            last = self._stop.wait(pause)
            failures = 0 if self._round(last) else min(failures + 1, 10)
            if last and (not failures or self._seconds_left() < _LAST_PAUSE_SECONDS):
                return
            if last:
                time.sleep(_LAST_PAUSE_SECONDS)

    def _round(self, last: bool) -> bool:
        """Send what is new; returns whether all of it was taken."""
        try:
            if self._more is not None:
                self._send(self._more)
                if last:
                    self._tracker.close(self._error)
                    self._closed = True
        except Exception as error:  # noqa: BLE001 - whatever a tracker's library raises, the run goes on
            self._heard(shorten(one_line(str(error) or type(error).__name__), _LONGEST_MESSAGE))
            return False
        self._heard(None)
        return True

    def _send(self, more: More) -> None:
        if self._there is None:
            self._there = self._tracker.open()
            self._lines.steps = max(0, self._there.step)
        while True:
            while self._waiting:
                batch = self._waiting[: self._tracker.most]
                self._tracker.send(batch)
                del self._waiting[: len(batch)]
            taken = list(points(more(self._lines, self.before), time.time()))
            if not taken:
                return self._tracker.idle()
            self._waiting = [point for point in taken if self._there.lacks(point)]

    def _heard(self, problem: str | None) -> None:
        if (problem is None) != (self._problem is None) and not (problem and self._stop.is_set()):
            self._say(
                f"nothing gets through to {self._tracker.name} ({problem}); training continues, and it is sent later"
                if problem
                else f"{self._tracker.name} takes what is sent again"
            )
        self._problem = problem

    def _left(self, more: More) -> str:
        """What the tracker has not got, for people."""
        there = self._there or Position()
        rest = Lines(self._lines.steps, self._lines.evaluations)
        left = [*self._waiting, *(p for p in points(more(rest, self.before), 0.0) if there.lacks(p))]
        steps = [point.step for point in left if not point.evaluation]
        evaluations = len(left) - len(steps)
        parts = [f"steps {steps[0]} to {steps[-1]}"] if steps else []
        parts += [f"{evaluations} evaluation{'s' if evaluations > 1 else ''}"] if evaluations else []
        return " and ".join(parts)
