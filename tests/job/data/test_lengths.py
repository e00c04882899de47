"""Lengths of the training texts, by classes."""

import numpy as np
import pytest

from lmft_job.data.tokens.lengths import histogram, summary


@pytest.mark.parametrize(
    ("lengths", "limit", "classes"),
    [
        ([1], None, [(1, 1)]),
        ([1, 9, 16, 17], None, [(8, 1), (16, 2), (32, 1)]),
        ([3, 128, 129, 700], 128, [(8, 1), (16, 0), (32, 0), (64, 0), (128, 1), (256, 1), (512, 0), (1024, 1)]),
        ([90, 500, 501], 500, [(8, 0), (16, 0), (32, 0), (63, 0), (125, 1), (250, 0), (500, 1), (1000, 1)]),
        ([5, 20], 131_072, [(8, 1), (16, 0), (32, 1)]),  # nowhere near the limit
        ([0], 64, [(1, 1)]),
        ([2, 70_000_000], 8, [*[(8 * 2**number, int(number == 0)) for number in range(20)], (None, 1)]),
    ],
)  # fmt: skip
def test_classes_double_and_the_limit_ends_one(
    lengths: list[int], limit: int | None, classes: list[tuple[int | None, int]]
) -> None:
    assert histogram(np.array(lengths, np.int64), limit) == classes


def test_every_text_is_in_one_class_and_those_beyond_the_limit_are_counted() -> None:
    draw = np.random.default_rng(5)
    for limit in (None, 1, 7, 128, 1000):
        lengths = draw.integers(0, 5_000, 300)

        told = summary(lengths, limit)

        assert sum(texts for _, texts in told.histogram) == 300
        assert told.longer == (None if limit is None else int((lengths > limit).sum()))
        if limit is not None:
            beyond = [texts for longest, texts in told.histogram if longest is None or longest > limit]
            assert sum(beyond) == told.longer
