"""Bytes of the API server's that hold what somebody wrote: deep, large, or no object at all.

The effect would be an exception other than the one that its callers expect, an object that is lost though it could be
told from others, or a neighbour on the same page that is.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from attacks.members.objects import identity, job, pod, run
from attacks.registry import Attack
from lmft_operator.cluster.reading import UnreadableError, read_event, read_list, read_object
from lmft_operator.domain.facts import job_facts, pod_facts, run_facts

FACTS: dict[str, Callable[[Any], Any]] = {"LMFineTune": run_facts, "Job": job_facts, "Pod": pod_facts}
BODIES = {
    "LMFineTune": run("team", "own", "uid-1"),
    "Job": job("team", "own-1", "uid-1", "run-1"),
    "Pod": pod("team", "own-1-x", "uid-1", "run-1", "own-1", "job-1"),
}
PAYLOADS = {
    "1,200 levels of objects": '{"a":' * 1_200 + "1" + "}" * 1_200,
    "9,000 levels of lists": "[" * 9_000 + "]" * 9_000,
    "20,000 levels of objects": '{"a":' * 20_000 + "1" + "}" * 20_000,
    "500,000 levels, never closed in the text before": json.dumps("[" * 500_000),
    "an integer of 5,000 digits": "9" * 5_000,
    "an exponent beyond all": "1e999999",
    "no number": "NaN",
    "1.2 MB of text": json.dumps("x" * 1_200_000),
    "1.2 MB of quotes": json.dumps('"\\' * 300_000),
    "1.2 MB of empty objects": "[" + "{}," * 400_000 + "{}]",
    "1.2 MB of keys": "{" + ",".join(f'"{n}":0' for n in range(120_000)) + "}",
    "half a character": '"\\ud800"',
    "brackets in a text": json.dumps("[{" * 10_000),
}
GARBAGE = [
    b"", b"{", b"}", b"null", b"[]", b"1", b'"text"', b"<html>502 Bad Gateway</html>", b"\xff\xfe\x00", b'{"items":',
    b'{"items":[]}', b'{"items":{},"metadata":{}}', b'{"items":[1],"metadata":{"resourceVersion":1}}',
    b'{"metadata":{"resourceVersion":"x"}}', b"[" * 100_000, b'{"a":' * 100_000, b'{"metadata":' + b"[" * 5000,
    b"{" + b'"\\' * 1000, b'{"metadata":{"uid":', b"\x00" * 1000, b"9" * 10_000, b'{"type":"ADDED"}',
    b'{"type":"ADDED","object":null}', b'{"type":7,"object":{}}', b'{"type":"ADDED","object":' + b"[" * 90_000,
]  # fmt: skip


def attacks() -> Iterator[Attack]:
    """Every payload in spec, status and metadata of each kind, as an object, in a list and in a watch; and garbage."""
    for kind, body in BODIES.items():
        for place in ("spec", "status", "metadata.annotations", "metadata.managedFields", "other"):
            for what, payload in PAYLOADS.items():
                text = with_payload(body, place, payload)
                name = f"{kind}: {place} is {what}"
                yield Attack(f"{name}, in an answer", partial(answered, kind, text))
                yield Attack(f"{name}, in a watch", partial(watched, kind, text))
                yield Attack(f"{name}, in a list", partial(listed, kind, text))
    for number, data in enumerate(GARBAGE):
        for name, read in (("an answer", read_object), ("a list", partial(_list, "Pod")), ("a watch", _watch)):
            yield Attack(f"garbage {number}, as {name}", partial(refused, read, data))


def with_payload(body: Any, place: str, payload: str) -> str:
    """An object as the API server writes it, with a piece of JSON at a place."""
    *above, last = place.split(".")
    whole: dict[str, Any] = json.loads(json.dumps(body))
    at = whole
    for name in above:
        at = at.setdefault(name, {})
    at[last] = "PAYLOAD"
    return json.dumps(whole, separators=(",", ":")).replace('"PAYLOAD"', payload)


def answered(kind: str, text: str) -> str | None:
    return judged(kind, read_object(text))


def watched(kind: str, text: str) -> str | None:
    event = read_event(f'{{"type":"MODIFIED","object":{text}}}')
    return judged(kind, event["object"]) if event["type"] == "MODIFIED" else f"became {event['type']}"


def listed(kind: str, text: str) -> str | None:
    """On a page with a neighbour, or alone where the page is too much, as the operator asks for it then."""
    neighbour = json.dumps({**BODIES[kind], "metadata": identity("team", "neighbour", "uid-2")})
    for items in (f"{text},{neighbour}", text):
        page_text = f'{{"kind":"{kind}List","items":[{items}],"metadata":{{"resourceVersion":"7"}}}}'
        page = read_list(page_text, kind)
        if len(page.items) == 2 and page.items[1]["metadata"]["uid"] != "uid-2":
            return "the neighbour is lost"
        if effect := judged(kind, page.items[0]):
            return effect
    return None


def judged(kind: str, body: Any) -> str | None:
    facts = FACTS[kind](body)
    if facts.uid != "uid-1":
        return "it cannot be told from others"
    return None if len(json.dumps(body)) < 500_000 else "a megabyte of it is kept"


def refused(read: Callable[[bytes], Any], data: bytes) -> str | None:
    try:
        read(data)
    except UnreadableError:
        return None
    return None


def _list(kind: str, data: bytes) -> Any:
    return read_list(data.decode("utf-8", "replace"), kind)


def _watch(data: bytes) -> Any:
    return read_event(data.decode("utf-8", "replace"))
