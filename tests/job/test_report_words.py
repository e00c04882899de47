"""Figures in words."""

import pytest

from lmft_job.report import words


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (7_000_000_000, "7B"),
        (1_543_714_304, "1.54B"),
        (999_999_999, "1B"),
        (81_912_576, "81.9M"),
        (3_600_000, "3.6M"),
        (999_499, "999K"),
        (999_500, "1M"),
        (918, "918"),
    ],
)
def test_a_models_size_is_said_as_people_do(number: int, said: str) -> None:
    assert words.short_count(number) == said
