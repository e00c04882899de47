"""Uncertainty of a held-out figure due to the choice of that data: standard errors over rows or blocks.

A figure is a ratio of two sums over units: the losses of all targets to their number, or the rows labelled correctly to
all rows. Its standard error is the ratio estimator's over randomly drawn units (Cochran, "Sampling Techniques", 1977,
section 6.4). Units are blocks if texts are packed, since the tokens of a block are not independent; otherwise rows.
"""

import io
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Units:
    """One evaluation by units; units without a target do not count.

    Attributes:
        losses: summed negative log-likelihood of each block or row, in nats; (units,).
        targets: number of targets of each; (units,).
        right: 1 if the row is labelled correctly, else 0; None for language models.
    """

    losses: Floats
    targets: Floats
    right: Floats | None = None

    @property
    def loss_error(self) -> float | None:
        """Standard error of the mean loss over all targets."""
        return ratio_error(self.losses, self.targets)

    @property
    def accuracy_error(self) -> float | None:
        """Standard error of the accuracy."""
        return None if self.right is None else share_error(self.right)

    def loss_change_error(self, before: "Units") -> float | None:
        """Standard error of the change of the mean loss, units compared pairwise."""
        if not np.array_equal(self.targets, before.targets):
            return None
        return ratio_error(self.losses - before.losses, self.targets)

    def accuracy_change_error(self, before: "Units") -> float | None:
        """Standard error of the change of accuracy, rows compared pairwise."""
        if self.right is None or before.right is None or len(self.right) != len(before.right):
            return None
        return ratio_error(self.right - before.right, np.ones(len(self.right)))

    def to_bytes(self) -> bytes:
        """As a numpy file of float64, with one row each for losses, targets and right."""
        parts = [self.losses, self.targets, *([] if self.right is None else [self.right])]
        file = io.BytesIO()
        np.save(file, np.stack(parts), allow_pickle=False)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Units":
        """Read back; raises ValueError if it is not such a file."""
        try:
            parts = np.load(io.BytesIO(data), allow_pickle=False)
        except (EOFError, OSError) as error:
            raise ValueError(str(error)) from error
        if parts.ndim != 2 or parts.dtype != np.float64 or len(parts) not in (2, 3):
            raise ValueError("not the figures of units")
        return cls(*parts)


def ratio_error(sums: Floats, weights: Floats) -> float | None:
    """Standard error of ``sums.sum() / weights.sum()``; None with fewer than two units of non-zero weight."""
    counted = weights > 0
    sums, weights = sums[counted], weights[counted]
    units, total = len(sums), math.fsum(weights)
    if units < 2:
        return None
    residuals = sums - math.fsum(sums) / total * weights
    return math.sqrt(units / (units - 1) * math.fsum(residuals**2)) / total


def share_error(right: Floats) -> float | None:
    """Standard error of a share.

    If none or all are right, the sample has no variance, which does not mean certainty: then of Laplace's
    (k + 1) / (n + 2).
    """
    rows, hits = len(right), math.fsum(right)
    if hits in (0, rows) and rows:
        share = (hits + 1) / (rows + 2)
        return math.sqrt(share * (1 - share) / rows)
    return ratio_error(right, np.ones(rows))
