"""When a checkpoint is written beside training, and whether the memory for its copy is there: pure."""

from dataclasses import dataclass

DEAR = 0.02
"""Share of the time between two checkpoints from which on training no longer waits for writing."""
USABLE = 0.75
"""Share of the free memory that a copy may take; a write that merges or splits weights takes some of the rest."""


@dataclass(frozen=True)
class Cost:
    """What a checkpoint has cost.

    Attributes:
        seconds: that training stood still to write it; what it waited for the upload of the one before is left out,
            because written beside training it would have waited for that too.
        interval: seconds from the end of the last checkpoint, or the begin of training, to the end of this one.
    """

    seconds: float
    interval: float

    @property
    def share(self) -> float:
        """Share of the interval."""
        return self.seconds / self.interval if self.interval > 0 else 0.0

    @property
    def dear(self) -> bool:
        """Whether the next checkpoint is to be written beside training."""
        return self.share > DEAR

    def __str__(self) -> str:
        return f"{self.seconds:.3g} s of {self.interval:.3g} s ({self.share:.1%})"


def fits(needed: int, writers: int, free: int | None) -> bool:
    """Whether a copy fits into the host's memory.

    Args:
        needed: bytes that a process has to allocate for it; 0 where it has them already.
        writers: processes of this machine that do so at the same time.
        free: bytes that are left; None if unknown.
    """
    return needed == 0 or (free is not None and needed * writers <= USABLE * free)
