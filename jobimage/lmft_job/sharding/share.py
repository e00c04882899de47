"""Which part of divided weights a process holds. Imports nothing heavy."""

import math
from dataclasses import dataclass

from lmft_job.distributed.world import World


@dataclass(frozen=True)
class Share:
    """The share of the divided weights that a process holds.

    Attributes:
        part: which of the parts, from 0.
        parts: how many there are.
        copy: number of the copy that this is a part of, from 0; there are several where each node holds all parts.
    """

    part: int = 0
    parts: int = 1
    copy: int = 0

    @property
    def writes(self) -> bool:
        """Whether this process stores its part; of several copies one is stored."""
        return self.copy == 0

    def rows(self, length: int) -> tuple[int, int]:
        """First row of this part, and the row after its last, of a weight with this many; as FSDP2 divides them."""
        each = math.ceil(length / self.parts)
        return min(length, self.part * each), min(length, (self.part + 1) * each)


WHOLE = Share()
"""The share of a process that holds all weights."""


def share_of(world: World, *, within_nodes: bool) -> Share:
    """The share of a process: of all of them, or of those of its node."""
    if within_nodes:
        return Share(world.local_rank, world.local_size, world.node)
    return Share(world.rank, world.size)
