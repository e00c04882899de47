"""Bounds of the progress server: connections, reviews, bodies, and a certificate that changes."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from lmft_operator.connections import Bounded
from lmft_operator.facts import PodFacts
from lmft_operator.progress import Identity, Refusal
from lmft_operator.progress_server import MAX_REVIEWS_AT_ONCE, ProgressServer, ServingCertificate

WHO = Identity("team-a", "eli5-1-abcde", "pod-uid")
POD = PodFacts("eli5-1-abcde", "pod-uid", "1", "run", 1, "Running", 0.0)
BODY = {"trainerStatus": {"progressPercentage": 42}}


class Echo(asyncio.Protocol):
    """Answers what it is told; remembers its end."""

    ended = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        Echo.ended += 1


@asynccontextmanager
async def listening(bounded: Bounded) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(bounded, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within 30 s")


async def chatter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x")
        await reader.readexactly(1)


async def test_one_connection_too_many_is_closed_and_the_others_go_on() -> None:
    refused: list[bool] = []
    bounded = Bounded(Echo, most=2, seconds=60, refused=lambda: refused.append(True))
    async with listening(bounded) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for reader, writer in held:
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
        reader, late = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(1)
        assert (refused, bounded.open) == ([True], 2)
        # A place that becomes free is somebody else's.
        held[0][1].close()
        await held[0][1].wait_closed()
        await until(lambda: bounded.open == 1)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"again")
        assert await reader.readexactly(5) == b"again"
        for stream in (late, writer, held[1][1]):
            stream.close()


async def test_a_connection_ends_when_its_time_is_up_whatever_it_does() -> None:
    Echo.ended = 0
    bounded = Bounded(Echo, most=9, seconds=0.2, refused=lambda: None)
    async with listening(bounded) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await chatter(reader, writer)
        await until(lambda: bounded.open == 0)
        assert Echo.ended == 1
        writer.close()


def server_of(
    review: Callable[[str], Awaitable[Identity | Refusal]], clock: Callable[[], float] = lambda: 100.0
) -> ProgressServer:
    return ProgressServer(review, lambda who: POD, lambda *taken: None, lambda outcome: None, clock=clock)


async def test_a_flood_of_unknown_tokens_takes_few_of_the_api_servers_connections() -> None:
    under_way, most = 0, 0
    release = asyncio.Event()

    async def review(token: str) -> Identity | Refusal:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await release.wait()
        under_way -= 1
        return Refusal(401, "token")

    async with TestClient(TestServer(server_of(review).application())) as client:
        posts = [
            asyncio.create_task(client.post("/", json=BODY, headers={"Authorization": f"Bearer {number}"}))
            for number in range(MAX_REVIEWS_AT_ONCE * 5)
        ]
        await until(lambda: most == MAX_REVIEWS_AT_ONCE)
        await asyncio.sleep(0.1)
        release.set()
        codes = {(await post).status for post in posts}
    assert (codes, most) == ({401}, MAX_REVIEWS_AT_ONCE)


async def test_what_the_api_server_could_not_review_is_asked_again() -> None:
    answers: list[Identity | Refusal] = [Refusal(503, "review"), WHO]

    async def review(token: str) -> Identity | Refusal:
        return answers.pop(0)

    async with TestClient(TestServer(server_of(review).application())) as client:
        codes = [(await client.post("/", json=BODY, headers={"Authorization": "Bearer x"})).status for _ in range(2)]
    assert codes == [503, 200]


async def test_reports_that_cannot_be_read_are_slowed_like_any_others() -> None:
    async def review(token: str) -> Identity | Refusal:
        return WHO

    async with TestClient(TestServer(server_of(review).application())) as client:
        codes = [(await client.post("/", data=b"{", headers={"Authorization": "Bearer x"})).status for _ in range(3)]
    assert codes == [422, 429, 429]


async def test_a_review_is_believed_for_a_while_and_then_asked_for_again() -> None:
    now, reviews = [100.0], []

    async def review(token: str) -> Identity | Refusal:
        reviews.append(token)
        return WHO

    async with TestClient(TestServer(server_of(review, lambda: now[0]).application())) as client:
        for seconds in (0, 30, 31):
            now[0] += seconds
            assert (await client.post("/", json=BODY, headers={"Authorization": "Bearer x"})).status == 200
    assert len(reviews) == 2


def make_certificate(folder: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", "/CN=x",
         "-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt")],
        check=True, capture_output=True,
    )  # fmt: skip


async def test_a_renewed_certificate_is_taken_up_and_a_broken_one_is_not(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    serving = ServingCertificate(tmp_path / "tls.crt", tmp_path / "tls.key")
    assert not serving.reload()
    make_certificate(tmp_path)
    said: list[str] = []
    following = asyncio.create_task(serving.follow(0.01, said.append))
    # Certificate and key are two files: one look may come between them.
    await until(lambda: "took up the renewed progress certificate" in said)
    said.clear()
    (tmp_path / "tls.key").write_text("-----BEGIN")
    await until(lambda: any("the old one stays" in line for line in said))
    following.cancel()
    assert "took up the renewed progress certificate" not in said
