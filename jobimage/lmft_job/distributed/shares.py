"""Which rows of an optimiser step each process takes: the same rows in the same step, whatever their number."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TypeVar

from lmft_job.distributed.world import World
from lmft_job.errors import InvalidError

T = TypeVar("T")


@dataclass(frozen=True)
class StepPlan:
    """How a step is divided.

    Attributes:
        rows: in a step, of all processes.
        most: rows in a pass of one process, at most.
        passes: of each process in a step; the same for all, some of them without a row.
    """

    rows: int
    most: int
    passes: int


def plan_step(rows: int, most: int, size: int) -> StepPlan:
    """Divide the rows of a step among processes.

    Args:
        rows: in a step.
        most: that a process takes in a pass.
        size: number of processes.

    Raises:
        InvalidError: there are more processes than rows.
    """
    if size > rows:
        raise InvalidError(
            [
                f"spec.resources: {size} processes, and an optimiser step has {rows} rows; at most {rows} processes "
                "(nodes × gpusPerNode) can share them. Set fewer, or raise training.batchSize in a new run"
            ]
        )
    share = ceil(rows / size)
    return StepPlan(rows, most, ceil(share / most))


def even_part(items: Sequence[T], part: int, parts: int) -> Sequence[T]:
    """The part of a sequence, as even as can be: earlier parts have one more where it does not divide."""
    each, rest = divmod(len(items), parts)
    first = part * each + min(part, rest)
    return items[first : first + each + (part < rest)]


def passes_of(step: Sequence[T], world: World, passes: int) -> list[Sequence[T]]:
    """The rows of a step that this process takes, by pass; a pass may have none."""
    mine = even_part(step, world.rank, world.size)
    return [even_part(mine, number, passes) for number in range(passes)]
