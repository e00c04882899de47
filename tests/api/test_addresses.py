"""Which addresses a platform's patterns admit: a manifest's wildcard never reaches what no pattern names."""

import time
from fnmatch import fnmatchcase

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lmft_api.addresses import admits, decoded, readable

ADMITTED = [
    ("s3://*", "s3://data/*.jsonl"),
    ("s3://data/team-*", "s3://data/team-*"),
    ("s3://data/*", "s3://data/**/x?.jsonl"),
    ("s3://data/team-?/*", "s3://data/team-a/*.jsonl"),
    ("s3://data/[ab]/x", "s3://data/a/x"),
    ("s3://data/[[]x", "s3://data/[x"),
    ("s3://data/x[", "s3://data/x["),
    ("*", ""),
    ("**", "anything"),
    ("s3://data/My Data/*", "s3://data/My Data/x"),
]
REFUSED = [
    ("s3://data/team-?/*", "s3://data/team-*/x"),
    ("s3://data/team-?/*", "s3://data/team-?/x"),
    ("s3://data/team-a?", "s3://data/team-a*"),
    ("s3://data/team-[!b]/*", "s3://data/team-*/x"),
    ("s3://data/team-[*]/*", "s3://data/team-*/x"),
    ("s3://data/????", "s3://data/**/x"),
    ("s3://data/??", "s3://data/**"),
    ("s3://data/team-a/x", "s3://data/team-?/x"),
    ("s3://data/*/x", "s3://data/*/y"),
    ("s3://data/", "s3://data"),
    ("", "x"),
]


@pytest.mark.parametrize(("pattern", "address"), ADMITTED)
def test_admitted(pattern: str, address: str) -> None:
    assert admits(pattern, address, wildcards=True)


@pytest.mark.parametrize(("pattern", "address"), REFUSED)
def test_refused(pattern: str, address: str) -> None:
    assert not admits(pattern, address, wildcards=True)


LETTERS = st.text("ab/*?", max_size=8)


@given(LETTERS, st.lists(st.one_of(st.sampled_from("ab/"), st.tuples(st.just("*"), st.text("ab/*?", max_size=3)))))
@example("a?", [("*", "b")])
def test_whatever_an_admitted_wildcard_stands_for_the_pattern_names_too(
    pattern: str, pieces: list[str | tuple[str, str]]
) -> None:
    manifest = "".join(piece[0] for piece in pieces)
    expanded = "".join(piece if isinstance(piece, str) else piece[1] for piece in pieces)

    if admits(pattern, manifest, wildcards=True):
        assert admits(pattern, expanded, wildcards=False)


@given(st.text("ab/*?[]!", max_size=10), st.text("ab/*?[]!", max_size=10))
def test_without_wildcards_a_pattern_is_what_shells_make_of_it(pattern: str, address: str) -> None:
    assert admits(pattern, address, wildcards=False) == fnmatchcase(address, pattern)


def test_no_address_makes_a_pattern_slow() -> None:
    began = time.process_time()
    assert not admits("s3://" + "*a" * 20 + "*b", "s3://" + "a" * 1000, wildcards=True)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("uri", "wanted"),
    [
        ("s3://b/My%20Data/x", "s3://b/My Data/x"),
        ("s3://b/My Data/x", "s3://b/My Data/x"),
        ("s3://b/100%/x", "s3://b/100%/x"),
        ("s3://b%41/x", "s3://b%41/x"),
        ("s3://b/%2e%2e/x", "s3://b/../x"),
        ("s3://b/%252e/x", "s3://b/%2e/x"),
        ("file:///%64ata/x", "file:///data/x"),
        ("company/model", "company/model"),
    ],
)
def test_an_address_is_decoded_once(uri: str, wanted: str) -> None:
    assert decoded(uri) == wanted


@given(st.text("ab% 2057/é", max_size=12))
def test_an_address_for_people_names_the_same_key(key: str) -> None:
    assert decoded(readable(f"s3://bucket/{key}")) == f"s3://bucket/{key}"
