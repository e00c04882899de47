"""What the processes of a run tell each other. Alone there is nobody to ask, and nothing to wait for."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from lmft_job.distributed.world import ALONE, World

T = TypeVar("T")
Floats = npt.NDArray[np.float64]
CHECK_EVERY = 8
"""Batches of an evaluation after which all processes hear whether to stop."""


class Agreement:
    """Flags of a step that every process hears at the same step. Alone they are heard at once."""

    def exchange(self, *mine: bool) -> tuple[bool, ...]:
        """Say our flags, and hear which of them somebody has set; call it once a step."""
        return mine


class Group:
    """The processes of a run; this one answers as if it were alone.

    Attributes:
        world: which of them this is.
    """

    def __init__(self, world: World = ALONE) -> None:
        self.world = world

    def agreement(self) -> Agreement:
        """A new exchange of flags, step by step."""
        return Agreement()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return flag

    def all(self, flag: bool) -> bool:
        """Whether the flag is set in all processes."""
        return not self.any(not flag)

    def sums(self, values: Floats) -> Floats:
        """Element by element, the sum over all processes, in float64."""
        return values

    def total(self, value: T) -> T:
        """The sum of a tensor over all processes; it stays on its device."""
        return value

    def gather(self, values: Floats) -> list[Floats]:
        """The arrays (1-D, of any length) of all processes, in order of rank."""
        return [values]

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """The bytes of all processes, in order of rank."""
        return [data]

    def from_main(self, make: Callable[[], T], others: Callable[[], None] = lambda: None) -> T:
        """What rank 0 makes, which is JSON; the others wait for it, after what they do meanwhile.

        Raises:
            JobError: rank 0 failed; every process raises the same.
        """
        return make()

    def wait(self) -> None:
        """Wait for all processes."""


SOLO = Group()
"""The group of a process without others."""


class SteadyCheck:
    """Whether to stop, asked in a loop that all processes run equally often; they are told the same.

    Args:
        group: the processes.
        asked: whether this process was asked to stop.
    """

    def __init__(self, group: Group, asked: Callable[[], bool]) -> None:
        self._group, self._asked, self._calls = group, asked, 0

    def __call__(self) -> bool:
        """Count a pass of the loop."""
        if self._group.world.alone:
            return self._asked()
        self._calls += 1
        return self._calls % CHECK_EVERY == 0 and self._group.any(self._asked())


def failure_note(error: Any) -> dict[str, Any]:
    """A failure of rank 0 as the others are told of it."""
    return {"exit": int(error.exit_code), "reason": str(error.reason), "message": str(error)}
