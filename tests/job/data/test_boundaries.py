"""Where texts begin in rows that they share, for an attention that takes no mask."""

import random

import numpy as np
import pytest
import torch

from lmft_job.data.isolated.boundaries import BOUNDARIES, PadBounded, boundaries_of
from lmft_job.data.isolated.collate import PadShared, real_tokens
from lmft_job.data.rows import FILLER, Item
from lmft_job.tasks.base import IGNORED


def row(*lengths: int) -> Item:
    ids = np.arange(10, 10 + sum(lengths))
    return {"input_ids": ids, "labels": ids, "lengths": np.array(lengths)}


def texts_of(boundaries: torch.Tensor) -> list[int]:
    return [length for length in boundaries.diff().tolist() if length]


@pytest.mark.parametrize(
    ("lengths", "rows", "width", "texts"),
    [
        pytest.param([[3, 2], [5]], 2, 5, [3, 2, 5], id="full rows"),
        pytest.param([[3], [4]], 2, 5, [3, 2, 4, 1], id="padding is a text of its own"),
        pytest.param([[3, 2]], 3, 5, [3, 2, 5, 5], id="so is a row that is all padding"),
        pytest.param([[1, 1, 1]], 1, 4, [1, 1, 1, 1], id="texts of one token"),
    ],
)
def test_boundaries_are_those_of_rows_laid_end_to_end(
    lengths: list[list[int]], rows: int, width: int, texts: list[int]
) -> None:
    boundaries = boundaries_of([np.array(some) for some in lengths], rows, width)

    assert boundaries.dtype == torch.int32
    assert boundaries[0] == 0
    assert boundaries[-1] == rows * width
    assert texts_of(boundaries) == texts
    assert len(boundaries) == 65, "there is room for 64 texts; those that are missing have no token"


def test_their_number_is_that_of_a_power_of_two() -> None:
    draw, rooms = random.Random(0), set()
    for most in (3, 9, 20, 60) * 50:
        lengths = [np.array([draw.randrange(1, 60) for _ in range(draw.randrange(1, most))]) for _ in range(8)]
        width = max(int(some.sum()) for some in lengths)
        boundaries = boundaries_of(lengths, 8, width)
        rooms.add(room := len(boundaries) - 1)
        assert room == 64 or len(texts_of(boundaries)) > room / 2

    assert rooms == {64, 128, 256, 512}


def test_rows_are_as_with_masks_and_every_batch_has_the_same_keys() -> None:
    plain, bounded = PadShared(7), PadBounded(PadShared(7))

    shared, lone = [row(3, 2), row(4)], [row(5), row(4)]

    for items in (shared, lone):
        batch = bounded(items)
        assert list(batch) == ["input_ids", "labels", "attention_mask", "position_ids", BOUNDARIES]
        for name, values in plain(items).items():
            assert torch.equal(batch[name], values), name
    assert bounded(shared)["position_ids"].tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 3, 0]]
    assert bounded(shared)["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]


def test_rows_and_tokens_that_are_missing_count_for_nothing() -> None:
    batch = PadBounded(PadShared(7), rows=4, width=8)([row(3, 2), row(4)])

    assert batch["input_ids"].shape == (4, 8)
    assert len(batch[FILLER]) == 2
    assert (batch["labels"][2:] == IGNORED).all()
    assert batch["attention_mask"].sum() == real_tokens(batch["position_ids"]) == 9
    assert texts_of(batch[BOUNDARIES]) == [3, 2, 3, 4, 4, 8, 8]
