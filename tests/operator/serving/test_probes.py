"""The port of the probes: what it answers, and that a crowd keeps nobody from an answer."""

import asyncio
import logging
import os
import resource
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice

import pytest
from support.loops import on_uvloop

from lmft_operator.process.limits import Limits
from lmft_operator.serving.probes import AT_ONCE, Probes, Problem

LIMITS = Limits()
HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


class Port:
    """Probes on a port of their own, clients that need no loop, and a count of what was dropped."""

    def __init__(self, checks: Mapping[str, tuple[Problem, int]], limits: Limits) -> None:
        self.dropped: Counter[str] = Counter()
        self.probes = Probes(checks, limits, lambda reason: self.dropped.update([reason]))
        self.number = self.probes.listen("127.0.0.1", 0)
        self.clients: list[socket.socket] = []

    def client(self, said: bytes = b"") -> socket.socket:
        """Connected as soon as the kernel has it, whether or not the loop gets to it."""
        client = socket.create_connection(("127.0.0.1", self.number))
        client.sendall(said)
        client.setblocking(False)
        self.clients.append(client)
        return client


@contextmanager
def serving(limits: Limits = LIMITS, **checks: tuple[Problem, int]) -> Iterator[Port]:
    port = Port({f"/{name}": check for name, check in checks.items()} or {"/healthz": (lambda: None, 500)}, limits)
    try:
        yield port
    finally:
        for client in port.clients:
            client.close()


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def answered(client: socket.socket) -> bytes:
    """Everything until the other side closes."""
    loop, said = asyncio.get_running_loop(), b""
    async with asyncio.timeout(10):
        while part := await loop.sock_recv(client, 4096):
            said += part
    return said


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        (HEALTHZ, b"200 OK", b"ok\n"),
        (b"GET /healthz?verbose=1 HTTP/1.0\r\n\r\n", b"200 OK", b"ok\n"),
        (b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"200 OK", b""),
        (b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", b"503 Service Unavailable", b"the first list is not complete\n"),
        (b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n", b"500 Internal Server Error", b"KeyError: 'jobs'\n"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"404 Not Found", b"not found\n"),
        (b"POST /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"405 Method Not Allowed", b"only GET and HEAD\n"),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"400 Bad Request", b"not an HTTP request\n"),
        (b"GET " + b"/" * 9_000, b"400 Bad Request", b"not an HTTP request\n"),
    ],
    ids=["live", "query", "head", "not ready", "a check fails", "elsewhere", "post", "tls", "endless"],
)
@on_uvloop
async def test_what_is_asked_is_answered_once(request_: bytes, status: bytes, body: bytes) -> None:
    logging.disable(logging.CRITICAL)
    with serving(
        healthz=(lambda: None, 500),
        readyz=(lambda: "the first list is not complete", 503),
        broken=(lambda: {}["jobs"], 500),
    ) as port:
        head, _, found = (await answered(port.client(request_))).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 " + status + b"\r\n")
        assert b"\r\nConnection: close" in head
        assert found == body
        assert len(port.probes) == 0
    logging.disable(logging.NOTSET)


@on_uvloop
async def test_a_request_may_come_in_pieces() -> None:
    with serving() as port:
        client = port.client()
        for byte in HEALTHZ:
            client.sendall(bytes([byte]))
            await turns(3)
        assert (await answered(client)).startswith(b"HTTP/1.1 200")


@on_uvloop
async def test_a_request_that_came_with_its_connection_makes_room_for_nobody_first() -> None:
    # given a loop that was held up, a probe, and a crowd of its own address after it: fifty times what the port takes
    with serving(Limits(most=4, per_source=2)) as port:
        probe = port.client(HEALTHZ)
        for number in range(200):
            port.client(b"" if number % 2 else b"GET /healthz HTT")
        # when the loop gets on with it
        await turns(4)
        # then the probe has its answer
        assert probe.recv(4096).startswith(b"HTTP/1.1 200")
        assert port.dropped == Counter(full=198)


@on_uvloop
async def test_a_crowd_is_let_in_within_a_turn_so_that_the_kernels_queue_does_not_fill() -> None:
    with serving(Limits(most=1000, per_source=1000)) as port:
        for _ in range(AT_ONCE):
            port.client()
        await turns(2)
        assert len(port.probes) == AT_ONCE


@on_uvloop
async def test_half_a_request_is_closed_when_its_time_is_up_and_counted() -> None:
    with serving(replace(LIMITS, header_seconds=0.1)) as port:
        assert await answered(port.client(HEALTHZ[:-2])) == b""
        assert port.dropped == Counter(header=1)
        assert len(port.probes) == 0


@on_uvloop
async def test_who_hangs_up_gives_the_place_back() -> None:
    with serving() as port:
        port.client()
        await turns(3)
        port.clients[0].close()
        await turns(5)
        assert (len(port.probes), port.dropped) == (0, Counter())


@on_uvloop
async def test_many_probes_at_once_look_only_once() -> None:
    looks: list[int] = []

    def check() -> str | None:
        looks.append(1)
        return None

    with serving(healthz=(check, 500)) as port:
        for _ in range(50):
            port.client(HEALTHZ)
        await turns(3)
        assert all(client.recv(4096).startswith(b"HTTP/1.1 200") for client in port.clients)
        assert len(looks) == 1


@contextmanager
def file_descriptors(left: int) -> Iterator[None]:
    """As many as are open, and a few more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir("/proc/self/fd")}
    free = (number for number in range(soft) if number not in used)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(islice(free, left, None)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@on_uvloop
async def test_without_a_file_descriptor_left_the_oldest_connection_makes_room() -> None:
    with serving() as port:
        for _ in range(30):
            port.client()
        probe = port.client(HEALTHZ)
        with file_descriptors(10):
            await turns(200)
        assert (await answered(probe)).startswith(b"HTTP/1.1 200")
        assert port.dropped["full"] > 0
