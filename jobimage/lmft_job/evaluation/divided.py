"""An evaluation divided among processes: each takes every n-th batch, and all put the same figures together.

The batches are those of a single process, and their figures are added in the same order, so the sums are the same too.
"""

from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from lmft_job.distributed.group import Floats, Group
from lmft_job.distributed.world import World

T = TypeVar("T")
_HEAD = 6


@dataclass
class BatchFigures:
    """What an evaluation keeps of a batch.

    Attributes:
        rows: rows of it.
        targets: targets of it.
        loss: summed negative log-likelihood of the targets, in nats.
        trainer_loss: the loss as Trainer's evaluation computes it, times the rows.
        unit_losses: of each row, summed; empty where the model's logits do not allow it.
        unit_targets: of each row.
        guesses: label that the model gives each row, for classification.
        truths: label of each row.
    """

    rows: int
    targets: int
    loss: float = 0.0
    trainer_loss: float = 0.0
    unit_losses: list[float] = field(default_factory=list)
    unit_targets: list[int] = field(default_factory=list)
    guesses: list[int] = field(default_factory=list)
    truths: list[int] = field(default_factory=list)

    def to_floats(self) -> list[float]:
        """As numbers: how many there are of each kind, then these."""
        head = [self.rows, self.targets, self.loss, self.trainer_loss, len(self.unit_losses), len(self.guesses)]
        return [*head, *self.unit_losses, *self.unit_targets, *self.guesses, *self.truths]

    @classmethod
    def all_from_floats(cls, values: Floats) -> "list[BatchFigures]":
        """Read back, one after the other."""
        found, at = [], 0
        while at < len(values):
            rows, targets, loss, trainer_loss, units, guesses = values[at : at + _HEAD].tolist()
            at += _HEAD
            lists = []
            for count in (units, units, guesses, guesses):
                lists.append(values[at : at + int(count)].tolist())
                at += int(count)
            whole = [[int(number) for number in numbers] for numbers in lists[1:]]
            found.append(cls(int(rows), int(targets), loss, trainer_loss, lists[0], *whole))
        return found


def dealt(batches: list[T], world: World) -> list[T]:
    """The batches of a process. All have the same number: those that come out short repeat some, which do not count."""
    numbers = range(world.rank, -(-len(batches) // world.size) * world.size, world.size)
    return [batches[number] if number < len(batches) else batches[0] for number in numbers]


def together(mine: list[BatchFigures], batches: int, group: Group) -> list[BatchFigures]:
    """The figures of all batches, in their order, in every process.

    Args:
        mine: of the batches that :func:`dealt` gave this process.
        batches: how many there are.
        group: the processes.
    """
    if group.world.alone:
        return mine
    numbers = np.array([number for part in mine for number in part.to_floats()], np.float64)
    shares = [BatchFigures.all_from_floats(values) for values in group.gather(numbers)]
    return [shares[number % group.world.size][number // group.world.size] for number in range(batches)]
