"""What is made of the API server's answers when somebody has written too much, or too deep, into an object."""

import json
from typing import Any

import pytest

from lmft_operator.cluster import reading
from lmft_operator.cluster.reading import read_event, read_list, read_object
from lmft_operator.domain.facts import run_facts

IDENTITY = {
    "namespace": "team", "name": "own", "uid": "u1", "resourceVersion": "7", "generation": 3,
    "labels": {"lmfinetune.dev/run-uid": "u0"},
}  # fmt: skip


def run(spec: str, **metadata: Any) -> str:
    return f'{{"apiVersion":"v","kind":"LMFineTune","metadata":{json.dumps(IDENTITY | metadata)},"spec":{spec}}}'


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize("levels", [1_200, 9_000, 20_000])
def test_of_an_object_that_is_too_deep_the_metadata_is_kept_and_its_owner_is_told(levels: int) -> None:
    facts = run_facts(read_object(run(nested(levels))))
    assert (facts.key, facts.uid, facts.version, facts.generation) == (("team", "own"), "u1", "7", 3)
    assert (facts.spec, facts.unread) == ("{}", reading.CUT)


def test_of_an_object_that_is_too_large_too() -> None:
    facts = run_facts(read_object(run(json.dumps({"a": "x" * 1_200_000}))))
    assert (facts.uid, facts.spec, facts.unread) == ("u1", "{}", reading.CUT)


def test_a_spec_of_more_than_128_kib_is_not_kept_but_its_hash_is() -> None:
    first, second = (run_facts(read_object(run(json.dumps({"a": letter * 140_000})))) for letter in "xy")
    assert first.spec == second.spec == "{}"
    assert first.unread.startswith("spec: is 140,008 bytes as JSON, and at most 131,072 are read (SHA-256 ")
    assert first.unread != second.unread, "a change of it is noticed"


def test_a_spec_below_it_is_kept_as_it_is() -> None:
    spec = {"model": {"fromConfig": {"a": [{"b": 1.5}, None, True, "ü"]}}}
    facts = run_facts(read_object(run(json.dumps(spec))))
    assert (json.loads(facts.spec), facts.unread) == (spec, "")


def test_brackets_in_texts_are_no_levels() -> None:
    assert reading.depth(json.dumps({"a": '[{"\\' * 5_000, "b": [[1]]})) <= reading.MAX_DEPTH
    assert reading.depth("[" * 300 + '"]]]]"' + "]" * 300) == 300


def test_metadata_that_nobody_reads_is_not_kept() -> None:
    body = read_object(run("{}", annotations={"a": "x" * 200_000}, managedFields=[{"fieldsV1": {"f:x": {}}}] * 500))
    assert len(json.dumps(body)) < 2_000


def test_one_object_of_a_page_that_cannot_be_read_does_not_cost_the_others() -> None:
    # given a page with one that nests too deep: it is asked for again, object by object
    deep, calm = run(nested(9_000)), run('{"model":{"name":"gpt2"}}', uid="u2")
    page = f'{{"apiVersion":"v","items":[{deep},{calm}],"kind":"L","metadata":{{"continue":"","resourceVersion":"9"}}}}'
    assert not reading.fits_page(page)
    # when it comes alone, the list's own metadata after it, as of a custom resource
    alone = page.replace(f",{calm}", "").replace('"continue":""', '"continue":"more"')
    found = read_list(alone, "LMFineTune")
    assert (found.version, found.following) == (9, "more")
    assert [run_facts(item).unread for item in found.items] == [reading.CUT]
    # and one of which not even the metadata can be read is left out, and the list goes on
    nameless = read_list(alone.replace('"uid": "u1"', '"uid": 7'), "LMFineTune")
    assert (nameless.items, nameless.following) == ([], "more")


SMALL, LARGE, DEEP = "x" * 1_000, "x" * 200_000, nested(300)


def asked(objects: list[str], most: int = 10) -> list[tuple[int, bool]]:
    """The pages that a list of these objects is asked for in: how many of them, and whether they could be parsed."""
    size, pages, at = reading.PageSize(most), [], 0
    while at < len(objects):
        text = "".join(objects[at : at + size.limit])
        whole = reading.fits_page(text)
        pages.append((size.limit, size.single or whole))
        if size.single or whole:
            at += size.limit
            size.taken(len(text), whole)
        else:
            size.refused()
    return pages


def test_small_objects_come_ten_at_a_time() -> None:
    assert asked([SMALL] * 100) == [(10, True)] * 10


@pytest.mark.parametrize("hostile", [DEEP, LARGE], ids=["deep", "large"])
def test_among_objects_that_are_not_parsed_no_page_is_asked_for_in_vain_again_and_again(hostile: str) -> None:
    pages = asked([hostile] * 1_000)
    assert (pages[0], len(pages)) == ((10, False), 1_001)


def test_small_ones_between_them_cost_a_few_pages_in_vain_and_no_more() -> None:
    pages = asked([SMALL, DEEP] * 500)
    assert 1 <= sum(not fitted for _, fitted in pages) <= 8
    pages = asked(([SMALL] * 100 + [LARGE]) * 20)
    assert sum(not fitted for _, fitted in pages) <= 20
    # and after the last of them, small ones come ten at a time again
    assert asked([DEEP, DEEP] + [SMALL] * 100)[-3:] == [(10, True)] * 3


def test_a_watch_goes_on_after_an_object_that_cannot_be_read() -> None:
    event = read_event(f'{{"type":"ADDED","object":{run(nested(20_000))}}}')
    assert (event["type"], event["object"]["metadata"]["uid"]) == ("ADDED", "u1")
    assert read_event('{"type":"ADDED","object":' + "[" * 20_000) == {"type": "BOOKMARK", "object": {}}
    assert read_event('{"type":"ERROR","object":{"kind":"Status","code":410}}')["object"]["code"] == 410
