"""Sends what a tracker lacks of a run's ``metrics.jsonl`` after the run's end; what it has is not sent again."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from lmft_api.wire.layout import METRICS
from lmft_job.errors import InvalidError
from lmft_job.trackers.points import Point, points
from lmft_job.trackers.tracker import Tracker

_LONGEST_LINE = 1024 * 1024


def send_rest(tracker: Tracker, path: Path, when: float, error: BaseException | None) -> int:
    """Send what is lacking; returns how many steps and evaluations that were.

    Args:
        tracker: where to.
        path: ``metrics.jsonl``.
        when: time of the points, UNIX seconds.
        error: how the run ended; None when it is complete.

    Raises:
        TrackerError: it did not take all; what it took stays.
        InvalidError: the file is not a run's.
    """
    there = tracker.open()
    lacking = (point for point in read_points(path, when) if there.lacks(point))
    sent = 0
    while batch := list(islice(lacking, tracker.most)):
        tracker.send(batch)
        sent += len(batch)
    tracker.close(error)
    return sent


def read_points(path: Path, when: float) -> Iterator[Point]:
    """The points of the file, one after the other; it may come from anywhere.

    Raises:
        InvalidError: a line is no step and no evaluation.
    """
    with path.open("rb") as file:
        number, last = 0, -1
        while line := file.readline(_LONGEST_LINE):
            number += 1
            try:
                found = list(points(line, when))
                if any(point.step < last for point in found):
                    raise ValueError("steps go backwards")
            except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
                raise InvalidError([f"line {number} of {METRICS} is neither a step nor an evaluation"]) from error
            last = max([last, *(point.step for point in found)])
            yield from found
