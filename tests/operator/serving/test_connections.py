"""Bounds on a port's connections: how many, of whom, how long, and who makes room."""

import asyncio
import socket
import ssl
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, cast

import pytest
from aiohttp import web
from support.loops import on_uvloop

from lmft_operator.process.limits import Limits
from lmft_operator.serving.certificates import ServingCertificate
from lmft_operator.serving.connections import AT_ONCE, Listener
from lmft_operator.serving.http import Port, Server

LIMITS = Limits(most=3, per_source=3)
LONG = Limits(most=9, per_source=9, handshake_seconds=60, header_seconds=60, seconds=60)


class Echo(asyncio.Protocol):
    """Answers what it is told; the newest ones are remembered."""

    made: ClassVar[list["Echo"]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by type
        Echo.made.append(self)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Client:
    """A connection to the port, and what became of it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def says(self, words: bytes = b"hello") -> None:
        self.writer.write(words)
        assert await self.reader.readexactly(len(words)) == words

    async def chatters(self) -> None:
        while True:
            await self.says(b"x")

    async def closed(self, seconds: float = 5) -> bool:
        """Whether the other side closes it."""
        try:
            return await asyncio.wait_for(self.reader.read(1), seconds) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False


class Listening:
    """A listener of echoes, and a count of what it dropped."""

    def __init__(self, limits: Limits, tls: ssl.SSLContext | None = None) -> None:
        self.dropped: Counter[str] = Counter()
        self.listener = Listener(Echo, limits, tls, lambda reason: self.dropped.update([reason]))
        self.port = self.listener.listen("127.0.0.1", 0)
        self.clients: list[Client] = []

    async def client(self, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Client:
        before = len(self.listener)
        streams = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0), ssl=tls)
        self.clients.append(Client(*streams))
        await until(lambda: len(self.listener) != before or bool(self.dropped))
        return self.clients[-1]


@asynccontextmanager
async def listening(limits: Limits, tls: ssl.SSLContext | None = None) -> AsyncIterator[Listening]:
    Echo.made.clear()
    server = Listening(limits, tls)
    try:
        yield server
    finally:
        server.listener.close()
        assert len(server.listener) == 0
        for client in server.clients:
            client.writer.close()


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within 30 s")


@on_uvloop
async def test_a_full_port_closes_its_oldest_connection_that_has_proven_nothing() -> None:
    async with listening(LIMITS) as server:
        first, second, third = [await server.client() for _ in range(3)]
        await first.says()
        server.listener.trust(Echo.made[0], "pod-1")
        fourth = await server.client()
        assert await second.closed()
        for client in (first, third, fourth):
            await client.says(b"still here")
        assert (server.dropped, len(server.listener)) == (Counter(full=1), 3)


@on_uvloop
async def test_a_port_full_of_proven_connections_takes_no_more() -> None:
    async with listening(LIMITS) as server:
        for number in range(3):
            await (await server.client()).says()
            server.listener.trust(Echo.made[-1], f"pod-{number}")
        late = await server.client()
        assert await late.closed()
        for client in server.clients[:3]:
            await client.says()


@on_uvloop
async def test_a_place_that_becomes_free_is_somebody_elses() -> None:
    async with listening(replace(LIMITS, most=1, per_source=1)) as server:
        client = await server.client()
        client.writer.close()
        await until(lambda: len(server.listener) == 0)
        await (await server.client()).says()
        assert not server.dropped


@on_uvloop
async def test_one_address_pushes_out_its_own_connections_and_no_others() -> None:
    async with listening(Limits(most=4, per_source=2)) as server:
        other = await server.client("127.0.0.2")
        mine = [await server.client("127.0.0.3") for _ in range(5)]
        assert [await client.closed(0.2) for client in mine] == [True, True, True, False, False]
        await other.says()


@on_uvloop
async def test_a_client_that_proves_itself_again_and_again_holds_few_places() -> None:
    async with listening(Limits(most=4, per_source=4, per_client=2)) as server:
        for _ in range(4):
            await (await server.client()).says()
            server.listener.trust(Echo.made[-1], "greedy")
        await server.client()
        assert [await client.closed(0.2) for client in server.clients] == [True, False, False, False, False]


@pytest.mark.parametrize(
    ("limits", "said", "reason"),
    [
        (replace(LONG, handshake_seconds=0.2), b"", "handshake"),
        (replace(LONG, header_seconds=0.2), b"GET / HT", "header"),
        (replace(LONG, seconds=0.2), b"", "time"),
        (replace(LONG, seconds=0.2), b"GET / HT", "time"),
    ],
)
@on_uvloop
async def test_a_connection_that_does_not_get_on_is_closed(limits: Limits, said: bytes, reason: str) -> None:
    async with listening(limits) as server:
        client = await server.client()
        if said:
            await client.says(said)
        assert await client.closed()
        assert server.dropped == Counter({reason: 1})


@on_uvloop
async def test_a_crowd_that_speaks_at_once_is_set_up_a_few_at_a_time_and_the_newest_first() -> None:
    # given a loop that was held up while connections came
    async with listening(Limits(most=100, per_source=100)) as server:
        sockets = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(40)]
        await until(lambda: len(server.listener) == 40)
        for client in sockets:
            client.sendall(b"x")
        # when all of them have sent something
        grown, seen = [], 0
        while seen < 40:
            await asyncio.sleep(0)
            grown.append(len(Echo.made) - seen)
            seen = len(Echo.made)
        # then no turn of the loop is long, and who came last need not wait for the others
        assert max(grown) <= AT_ONCE
        assert Echo.made[0].transport.get_extra_info("peername") == sockets[-1].getsockname()
        for client in sockets:
            client.close()


@on_uvloop
async def test_who_hangs_up_without_a_word_is_not_set_up() -> None:
    async with listening(LONG) as server:
        client = socket.create_connection(("127.0.0.1", server.port))
        await until(lambda: len(server.listener) == 1)
        client.close()
        await until(lambda: len(server.listener) == 0)
        assert (Echo.made, server.dropped) == ([], Counter())


@on_uvloop
async def test_a_connection_ends_when_its_time_is_up_however_busy_it_is() -> None:
    async with listening(replace(LONG, seconds=0.3)) as server:
        client = await server.client()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.chatters()
        assert server.dropped == Counter(time=1)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    folder = tmp_path_factory.mktemp("tls")
    make_certificate(folder)
    return ServingCertificate(folder / "tls.crt", folder / "tls.key").context


def anyone() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@on_uvloop
async def test_a_handshake_that_is_not_finished_in_time_is_closed_and_counted(tls: ssl.SSLContext) -> None:
    async with listening(replace(LONG, handshake_seconds=0.2), tls) as server:
        client = await server.client()
        client.writer.write(b"\x16\x03\x01\x02\x00\x01")
        assert await client.closed()
        assert server.dropped == Counter(handshake=1)


@pytest.mark.parametrize("words", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 600, b"\x16\x03\x01\x00\x40" + b"\xff" * 600])
@on_uvloop
async def test_what_is_no_handshake_ends_its_connection_alone(tls: ssl.SSLContext, words: bytes) -> None:
    async with listening(LONG, tls) as server:
        good = await server.client(tls=anyone())
        bad = await server.client()
        bad.writer.write(words)
        assert await bad.reader.read(-1) is not None
        await good.says()
        assert server.dropped == Counter(handshake=1)


@on_uvloop
async def test_connections_in_the_middle_of_a_handshake_make_room_too(tls: ssl.SSLContext) -> None:
    async with listening(replace(LONG, most=3, per_source=3), tls) as server:
        slow = [await server.client() for _ in range(3)]
        for client in slow:
            client.writer.write(b"\x16\x03\x01\x02\x00\x01")
        good = await server.client(tls=anyone())
        assert await slow[0].closed()
        await good.says()


@pytest.mark.parametrize("said", [b"", b"POST / HTTP/1.1\r\nHost: x\r\n"], ids=["silent", "half a request"])
@on_uvloop
async def test_a_real_request_gets_through_a_crowd_at_once(said: bytes) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="ok")

    server = Server([web.get("/metrics", answer)], Port("metrics", "127.0.0.1", 28431, Limits()))
    await server.start()
    crowd = []
    try:
        for _ in range(800):
            _, writer = await asyncio.open_connection("127.0.0.1", 28431)
            writer.write(said)
            crowd.append(writer)
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection("127.0.0.1", 28431)
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            # One request a connection: nobody keeps a place by asking again.
            assert (await reader.read()).endswith(b"ok")
        writer.close()
    finally:
        for writer in crowd:
            writer.close()
        await server.stop()


def make_certificate(folder: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", "/CN=x",
         "-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt")],
        check=True, capture_output=True,
    )  # fmt: skip


@on_uvloop
async def test_a_renewed_certificate_is_taken_up_and_a_broken_one_is_not(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    serving = ServingCertificate(tmp_path / "tls.crt", tmp_path / "tls.key")
    assert not serving.reload()
    make_certificate(tmp_path)
    said: list[str] = []
    following = asyncio.create_task(serving.follow(0.01, said.append))
    # Certificate and key are two files: one look may come between them.
    await until(lambda: "loaded the renewed serving certificate" in said)
    said.clear()
    (tmp_path / "tls.key").write_text("-----BEGIN")
    await until(lambda: any("keeping the old one" in line for line in said))
    following.cancel()
    assert "loaded the renewed serving certificate" not in said
