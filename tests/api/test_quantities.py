"""Kubernetes quantities as numbers: every suffix that a manifest or a node may use."""

import pytest

from lmft_api.schema.rules import amount

SUFFIXES = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60,
}  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_each_suffix_is_read(suffix: str) -> None:
    assert amount(f"3{suffix}") == 3 * SUFFIXES[suffix]
    assert amount(f"1.5{suffix}") == SUFFIXES[suffix] * 3 / 2


def test_thousandths_are_exact() -> None:
    assert amount("1500m") * 2 == 3


@pytest.mark.parametrize("text", ["", "Gi", "1K", "1e3", "-1", "+1", "1 Gi", "1Gib", ".5", "1."])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="16Gi"):
        amount(text)
