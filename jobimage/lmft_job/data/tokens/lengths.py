"""How long the texts are, in tokens."""

import numpy as np

from lmft_api.wire.report import TextLengths
from lmft_job.data.tokens.packing import Lengths

_SHORTEST_CLASS = 8
_MOST_CLASSES = 20
_FAR = 4
"""A limit that is so many times the longest text is none that the classes have to show."""


def summary(lengths: Lengths, limit: int | None) -> TextLengths:
    """The lengths in numbers, and by classes.

    Args:
        lengths: tokens of each text, before it is cut or joined with others; at least one.
        limit: tokens of a block, or at which rows are cut; None for no limit.
    """
    return TextLengths(
        minimum=int(lengths.min()),
        median=float(np.median(lengths)),
        mean=float(lengths.mean()),
        p95=float(np.percentile(lengths, 95)),
        maximum=int(lengths.max()),
        limit=limit,
        longer=None if limit is None else int((lengths > limit).sum()),
        histogram=histogram(lengths, limit),
    )


def histogram(lengths: Lengths, limit: int | None) -> list[tuple[int | None, int]]:
    """Numbers of texts by length: the longest length of each class, and its texts; None for all above.

    Each class reaches twice as far as the one before; the limit ends one, unless all texts are much shorter.
    """
    longest = max(1, int(lengths.max()))
    near = limit is not None and limit <= _FAR * longest
    bounds = [limit if near and limit else 1 << (longest - 1).bit_length()]
    while bounds[0] > _SHORTEST_CLASS and len(bounds) < _MOST_CLASSES:
        bounds.insert(0, (bounds[0] + 1) // 2)
    while bounds[-1] < longest and len(bounds) < _MOST_CLASSES:
        bounds.append(2 * bounds[-1])
    counts = np.diff([0, *(int((lengths <= bound).sum()) for bound in bounds)]).tolist()
    above = int((lengths > bounds[-1]).sum())
    return [*zip(bounds, counts, strict=True), *([(None, above)] if above else [])]
