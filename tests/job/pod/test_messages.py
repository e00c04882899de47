"""What comes over the network is a message, or ends the connection: nothing else."""

import json
import random
from contextlib import suppress
from typing import Any

import pytest

from lmft_job.pod.messages import (
    MOST_BYTES,
    Beat,
    Bye,
    Cause,
    Hello,
    Message,
    NotUnderstoodError,
    Reader,
    Stop,
    Welcome,
    decode,
    encode,
)

ALL: list[Message] = [
    Hello("uid", 3, 1, "toy-1", "gpu-b"), Welcome(), Beat(), Stop(2), Bye(75),
    Cause(1, "rank 3 was killed", "InternalError", 137, True, False),
]  # fmt: skip


@pytest.mark.parametrize("message", ALL, ids=lambda message: type(message).__name__)
def test_a_message_comes_as_it_went(message: Message) -> None:
    assert decode(encode(message)) == message


def test_a_long_text_is_cut_and_a_terminals_commands_are_taken_out() -> None:
    for text in ("é" * 5000, "\U0001f600" * 5000, "a\x1b[2Jb\n::error::c" * 400):
        line = encode(Cause(1, text, "Hung", 7))
        assert len(line) <= MOST_BYTES
        cause = decode(line)
        assert isinstance(cause, Cause)
        assert "\x1b" not in cause.words
        assert "\n" not in cause.words


@pytest.mark.parametrize(
    "line",
    [
        b"", b"\xff\xfe", b"null", b"[]", b"{}", b'{"kind":"bye"}', b'{"kind":"bye","code":true}',
        b'{"kind":"bye","code":1.5}', b'{"kind":"bye","code":' + b"9" * 3000 + b"}", b'{"kind":["bye"],"code":0}',
        b'{"kind":"hello","run":1,"attempt":1,"index":1}', b"[" * 4000, b'{"a":' * 800,
        b'{"kind":"cause","index":1,"words":"x","reason":"Nonsense","code":1}', b"GET / HTTP/1.1",
    ],
)  # fmt: skip
def test_anything_else_is_refused(line: bytes) -> None:
    with pytest.raises(NotUnderstoodError):
        decode(line)


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    reader = Reader()
    assert reader.feed(b"x" * MOST_BYTES) == []
    with pytest.raises(NotUnderstoodError):
        reader.feed(b"x")


def test_messages_are_found_however_they_are_cut() -> None:
    whole, random_ = b"".join(map(encode, ALL)), random.Random(7)
    for _ in range(50):
        reader, found, rest = Reader(), [], whole
        while rest:
            size = random_.randint(1, 40)
            found += reader.feed(rest[:size])
            rest = rest[size:]
        assert found == ALL


def test_random_bytes_are_messages_or_refused() -> None:
    random_ = random.Random(1)
    for _ in range(3000):
        data = bytearray(encode(random_.choice(ALL)))
        for _ in range(random_.randint(0, 8)):
            data[random_.randrange(len(data))] = random_.randrange(256)
        with suppress(NotUnderstoodError):
            Reader().feed(bytes(data) + random_.randbytes(random_.randint(0, 60)))


def test_random_fields_are_a_message_or_refused() -> None:
    random_ = random.Random(2)
    names = ["run", "attempt", "index", "words", "reason", "code", "at_once", "stacks", "pod", "other"]
    values: list[Any] = [None, True, 0, -1, 1 << 40, 1.5, float("nan"), "", "x" * 5000, "Hung", "\ud800", [], [1], {}]
    understood = 0
    for _ in range(5000):
        fields = {name: random_.choice(values) for name in random_.sample(names, random_.randint(0, len(names)))}
        kind = random_.choice(["hello", "welcome", "beat", "stop", "cause", "bye", "x"])
        with suppress(NotUnderstoodError):
            message = decode(json.dumps({"kind": kind, **fields}).encode())
            assert decode(encode(message)) == message
            understood += 1
    assert understood > 100
