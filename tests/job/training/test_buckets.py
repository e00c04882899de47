"""Lengths of batches of padded rows: few, and chosen from the lengths of the rows so that little padding is added."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from lmft_job.training.acceleration.buckets import LITTLE_PADDING, MOST_LENGTHS, MOST_PADDING, choose_buckets

SAME = np.full(100, 64)
TWO = np.repeat([30, 2000], [900, 100])
FEW = np.array([8] * 5 + [16] * 3 + [40] * 2 + [48])


@pytest.mark.parametrize(
    ("trained", "longest", "batch", "most", "lengths"),
    [
        pytest.param(SAME, 64, 4, 8, (64,), id="rows of one length"),
        pytest.param(SAME, 96, 4, 8, (64, 96), id="a longer held-out row does not lengthen what is trained on"),
        pytest.param(TWO, 2000, 1, 8, (32, 2000), id="two lengths"),
        pytest.param(TWO, 2000, 64, 8, (2000,), id="where nearly every batch has a long row"),
        pytest.param(TWO, 2000, 1, 1, None, id="one length is not enough"),
        pytest.param(TWO, 2000, 1, 0, None, id="too few steps for any"),
        pytest.param(np.array([8, 16, 20]), 20, 1, 8, (8, 16, 20), id="the last one is the model's limit"),
        pytest.param(np.array([3, 5, 20]), 20, 1, 8, None, id="rows too short to be rounded"),
    ],
)
def test_the_fewest_lengths_with_little_padding(
    trained: Any, longest: int, batch: int, most: int, lengths: tuple[int, ...] | None
) -> None:
    chosen = choose_buckets(trained, longest, batch, most=most)

    assert (chosen and chosen.lengths) == lengths


def padding_of(lengths: tuple[int, ...], longest: Any) -> float:
    """Tokens that these lengths add to batches whose longest rows are these, as a share."""
    return float(np.array(lengths)[np.searchsorted(lengths, longest)].sum() / longest.sum()) - 1


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_other_lengths_add_less(most: int) -> None:
    chosen = choose_buckets(FEW, 48, 1, most=most)
    best = min(padding_of((*some, 48), FEW) for some in combinations(range(8, 48, 8), most - 1))

    if chosen is None:
        assert best > MOST_PADDING
    else:
        assert chosen.padding == pytest.approx(best)


@pytest.mark.parametrize("batch", [4, 8, 16, 32])
def test_conversations_of_varied_length_get_little_more_padding_than_to_the_longest_of_their_batch(batch: int) -> None:
    # given lengths as those of conversations, and batches drawn of them
    chance = np.random.default_rng(7)
    lengths = np.clip(chance.lognormal(5.3, 0.8, 20_000).astype(int), 8, 1024)
    drawn = chance.permutation(lengths).reshape(-1, batch)

    chosen = choose_buckets(lengths, 1024, batch, most=MOST_LENGTHS)

    assert chosen is not None
    assert len(chosen.lengths) <= MOST_LENGTHS
    assert chosen.padding <= (MOST_PADDING if len(chosen.lengths) == MOST_LENGTHS else LITTLE_PADDING)
    assert padding_of(chosen.lengths, drawn.max(1)) == pytest.approx(chosen.padding, abs=0.01)
    to_longest = batch * int(drawn.max(1).sum())
    padded = round(to_longest * (1 + padding_of(chosen.lengths, drawn.max(1))))
    real = int(lengths.sum())
    print(
        f"{batch} rows: {real:,} tokens, {to_longest / real:.2f} times as many padded to the longest of a batch, "
        f"{padded / real:.2f} times to one of {len(chosen.lengths)} lengths: {chosen.lengths}"
    )
