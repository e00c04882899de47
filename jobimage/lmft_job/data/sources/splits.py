"""Which rows train and which are held out."""

import math
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

_SLICE = re.compile(r"^(?P<name>[^\[\]+]+)(\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?$")


@dataclass(frozen=True)
class Slice:
    """A split and the wanted part of it, as in ``train[:5000]`` or ``train[80%:]``."""

    name: str
    start: str | None = None
    stop: str | None = None

    def indices(self, rows: int) -> Indices:
        """Numbers of the wanted rows, in order; percentages round to the nearest row, as in ``datasets``."""
        start = 0 if self.start is None else _absolute(self.start, rows)
        stop = rows if self.stop is None else _absolute(self.stop, rows)
        return np.arange(start, max(start, stop), dtype=np.int64)


def parse(split: str) -> Slice | None:
    """Parse a split's name and slice; None if the text is neither."""
    match = _SLICE.match(split.strip())
    return Slice(match["name"], match["start"], match["stop"]) if match else None


def _absolute(bound: str, rows: int) -> int:
    number = int(bound.rstrip("%"))
    if bound.endswith("%"):
        number = round(number * rows / 100)
    if number < 0:
        number += rows
    return min(max(number, 0), rows)


def hold_out(rows: int, percent: int, seed: int) -> tuple[Indices, Indices]:
    """A seeded random split into training and held-out rows.

    The same rows in the same order as ``datasets.Dataset.train_test_split(test_size=percent / 100, seed=seed)``, the
    tutorials' call: a permutation by numpy's default generator, whose first ceil(share x rows) are held out.
    """
    held = math.ceil(percent / 100 * rows)
    order = np.random.default_rng(seed).permutation(rows)
    return order[held:], order[:held]
