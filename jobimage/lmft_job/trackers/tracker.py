"""What every tracker is to the thread that sends to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lmft_job.trackers.points import Point, Position


class TrackerError(Exception):
    """A tracker did not take something; its message is short, for people, and shows no credentials."""


@dataclass(frozen=True)
class RunCard:
    """What trackers show of a run beside its metrics.

    Attributes:
        id: unique, the same in all attempts; letters, digits and '-'.
        name: for people.
        params: settings: texts, numbers, true, false or None.
        tags: namespace, and where its files are.
    """

    id: str
    name: str
    params: Mapping[str, str | int | float | bool | None]
    tags: Mapping[str, str]


class Tracker(Protocol):
    """One tracker of a run. Its methods are called from one thread, may be slow, and raise :class:`TrackerError`.

    Attributes:
        name: for people: ``MLflow at https://…``.
        most: points that ``send`` takes at once.
        in_folder: whether it writes into the run's folder, which must be complete when the run is.
    """

    name: str
    most: int
    in_folder: bool

    def open(self) -> Position:
        """Begin the run there, or find the one that an earlier attempt has begun; returns what that has."""

    def send(self, points: Sequence[Point]) -> None:
        """Store points; after an error the same ones are sent again."""

    def idle(self) -> None:
        """All has been sent, and nothing is new; called between the calls of ``send``."""
        return

    def close(self, error: BaseException | None) -> None:
        """The attempt ends, complete or by an error; everything has been sent."""

    def pause(self) -> float:
        """Seconds until it should be sent to again."""
