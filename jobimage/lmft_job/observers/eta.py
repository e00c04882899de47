"""Estimates of the time left and of speed; the same for the log and for live progress."""

from lmft_api.text.wording import size
from lmft_job.process.transfers import Transfer


class StepTimer:
    """Seconds per step, smoothed; time spent in evaluations does not count."""

    def __init__(self, weight: float = 0.1) -> None:
        self._weight = weight
        self._seconds: float | None = None
        self._last: tuple[int, float] | None = None

    def step(self, step: int, now: float) -> None:
        """A step was done at ``now`` (seconds)."""
        if self._last is not None and step > self._last[0]:
            taken = (now - self._last[1]) / (step - self._last[0])
            self._seconds = taken if self._seconds is None else self._seconds + self._weight * (taken - self._seconds)
        self._last = (step, now)

    def pause(self, now: float) -> None:
        """Other work ended at ``now``; the next step is measured from here."""
        if self._last is not None:
            self._last = (self._last[0], now)

    def seconds_left(self, step: int, total: int) -> float | None:
        """Estimate for the remaining steps; None until two steps were seen."""
        return None if self._seconds is None else self._seconds * max(0, total - step)


class TransferPace:
    """How fast a transfer is, on average since it was first heard of.

    Attributes:
        last_line: when a line was last printed of it, in seconds; at first when it began.
    """

    def __init__(self, first: Transfer, now: float) -> None:
        self._first, self._began = first.done, now
        self.last_line = now

    def words(self, transfer: Transfer, now: float) -> str:
        """For people: ``distilgpt2 210 MiB of 1.2 GiB, 35 MiB/s``."""
        of = f" of {size(transfer.total)}" if transfer.total is not None and transfer.total >= transfer.done else ""
        seconds = now - self._began
        pace = f", {size(round((transfer.done - self._first) / seconds))}/s" if seconds >= 1 else ""
        return f"{transfer.name} {size(transfer.done)}{of}{pace}"
