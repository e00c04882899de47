"""A service that answers whatever it is told to, be it HTTP or not, in place of S3; and one that nobody may ask."""

import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from lmft_job.storage.s3 import S3Settings, S3Store
from lmft_job.storage.store import PURPOSES

BUCKET = "bucket"
_SECONDS = 20.0
"""After which the service itself gives up what has no end."""


@dataclass(frozen=True)
class Answer:
    """What is sent, whatever was asked.

    Attributes:
        status: of HTTP.
        headers: besides Content-Length, which is right unless it is given here.
        body: bytes.
        again: whether the body is repeated for ever.
        raw: sent instead of all that.
        pages: bodies of the first, second, … request; the last for all that follow.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    again: bool = False
    raw: bytes | None = None
    pages: tuple[bytes, ...] = ()

    def page(self, number: int) -> bytes:
        """The body of the request of that number, from 0."""
        return self.pages[min(number, len(self.pages) - 1)] if self.pages else self.body


@dataclass
class Service:
    """The running service: what it answers, and what it was asked."""

    endpoint: str = ""
    answer: Answer = field(default_factory=Answer)
    asked: list[str] = field(default_factory=list)
    elsewhere: str = ""
    asked_elsewhere: list[str] = field(default_factory=list)

    def answers(self, answer: Answer) -> None:
        """From now on, and forgets what was asked before."""
        self.answer = answer
        self.asked.clear()
        self.asked_elsewhere.clear()

    def store(self, purpose: str = "output", part_bytes: int = 64 * 1024) -> S3Store:
        """Storage there, by a client that others use too and that asks once."""
        client = _client(self.endpoint)
        return S3Store(client._client, BUCKET, "root", PURPOSES[purpose], _settings(part_bytes))


@cache
def service() -> Service:
    """One for the process."""
    state = Service()

    def answer(request: str) -> tuple[Answer, int]:
        state.asked.append(request)
        return state.answer, len(state.asked) - 1

    def elsewhere(request: str) -> tuple[Answer, int]:
        state.asked_elsewhere.append(request)
        return Answer(), 0

    state.endpoint, state.elsewhere = _serve(answer), _serve(elsewhere)
    return state


def _settings(part_bytes: int) -> S3Settings:
    return S3Settings(part_bytes=part_bytes, connections=2, connect_seconds=2, read_seconds=3, attempts=1)


@cache
def _client(endpoint: str) -> S3Store:
    folder = Path(tempfile.mkdtemp(prefix="lmft-attacks-"))
    values = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    for name, value in values.items():
        (folder / name).write_text(value)
    return S3Store.connect(BUCKET, "root", PURPOSES["output"], folder, _settings(64 * 1024))


def _serve(answer: Callable[[str], tuple[Answer, int]]) -> str:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _answer(self) -> None:
            with contextlib.suppress(OSError):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self._send(*answer(f"{self.command} {self.path}"))

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer

        def _send(self, wanted: Answer, number: int) -> None:
            if wanted.raw is not None:
                self.close_connection = True
                self._write(_repeated(wanted.raw, wanted.again))
                return
            body = wanted.page(number)
            self.send_response(wanted.status)
            for name, value in wanted.headers:
                self.send_header(name, value)
            if not any(name.lower() in ("content-length", "transfer-encoding") for name, _ in wanted.headers):
                self.send_header("Content-Length", str(len(body)))
            else:
                self.close_connection = True
            self.end_headers()
            if self.command != "HEAD":
                self._write(_repeated(body, wanted.again))

        def _write(self, pieces: Iterable[bytes]) -> None:
            for piece in pieces:
                self.wfile.write(piece)

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that went away is what we want."""

        def get_request(self) -> tuple[socket.socket, object]:
            connection, address = super().get_request()
            connection.settimeout(_SECONDS)
            return connection, address

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def _repeated(piece: bytes, again: bool) -> Iterator[bytes]:
    end = time.monotonic() + _SECONDS
    yield piece
    while again and time.monotonic() < end:
        yield piece
