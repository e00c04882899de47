"""Trouble on demand: an HTTP proxy between a client and an S3 server, and a disk that is soon full.

    with proxy(server.endpoint, every(10, Fault.UNAVAILABLE)) as trouble:
        ... endpoint_url=trouble.endpoint ...

The Host header passes unchanged, so signatures stay valid.
"""

import http.client
import itertools
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


class Fault(Enum):
    """What goes wrong with one request."""

    UNAVAILABLE = "answered 503 SlowDown, not passed on"
    TOO_MANY = "answered 429, not passed on"
    FULL = "answered 507, not passed on"
    CUT_REQUEST = "the connection breaks in the middle of the request's body; nothing is passed on"
    CUT_ANSWER = "passed on; the connection breaks in the middle of the answer's body"
    LOST_ANSWER = "passed on; the connection breaks before the answer"
    SILENT = "taken, never answered"


@dataclass(frozen=True)
class Request:
    """What a rule decides by. The number counts all requests from 1."""

    number: int
    method: str
    path: str
    headers: dict[str, str]


Rule = Callable[[Request], Fault | None]


def every(n: int, fault: Fault, method: str | None = None) -> Rule:
    """The fault on every nth request (of a method, if given)."""
    counter = itertools.count(1)
    lock = threading.Lock()

    def rule(request: Request) -> Fault | None:
        if method not in (None, request.method):
            return None
        with lock:
            return fault if next(counter) % n == 0 else None

    return rule


def first(times: int, fault: Fault, method: str, ending: str = "") -> Rule:
    """The fault on the first requests of a method whose path ends so."""
    counter = itertools.count(1)

    def rule(request: Request) -> Fault | None:
        if request.method != method or not urlsplit(request.path).path.endswith(ending):
            return None
        return fault if next(counter) <= times else None

    return rule


@dataclass
class Proxy:
    """A running proxy: its address, what it has seen, and which faults it has made."""

    endpoint: str
    rule: Rule
    seen: list[Request] = field(default_factory=list)
    made: list[tuple[Fault, Request]] = field(default_factory=list)
    delay_seconds: float = 0.0


@contextmanager
def proxy(upstream: str, rule: Rule = lambda request: None, delay_seconds: float = 0.0) -> Iterator[Proxy]:
    """Starts a proxy in threads of this process; the rule may be replaced while it runs."""
    address = urlsplit(upstream)
    state = Proxy("", rule, delay_seconds=delay_seconds)
    lock = threading.Lock()
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_all(self) -> None:
            with lock:
                request = Request(len(state.seen) + 1, self.command, self.path, dict(self.headers.items()))
                state.seen.append(request)
                fault = state.rule(request)
                if fault:
                    state.made.append((fault, request))
            time.sleep(state.delay_seconds)
            length = int(self.headers.get("Content-Length") or 0)
            if fault is Fault.SILENT:
                ended.wait()
                return self.cut()
            if fault is Fault.CUT_REQUEST:
                self.rfile.read(length // 2)
                return self.cut()
            body = self.rfile.read(length)
            if fault is Fault.UNAVAILABLE:
                return self.say(503, "SlowDown")
            if fault is Fault.TOO_MANY:
                return self.say(429, "TooMany")
            if fault is Fault.FULL:
                return self.say(507, "InsufficientStorage")
            return self.pass_on(body, fault)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_all

        def pass_on(self, body: bytes, fault: Fault | None) -> None:
            connection = http.client.HTTPConnection(address.hostname or "", address.port or 80)
            try:
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in ("expect", "connection"):
                        connection.putheader(name, value)
                connection.endheaders(body or None)
                answer = connection.getresponse()
                data = answer.read()
            finally:
                connection.close()
            if fault is Fault.LOST_ANSWER:
                return self.cut()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "date", "server", "content-length"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
            if length is not None:
                self.send_header("Content-Length", length)
            self.end_headers()
            if fault is Fault.CUT_ANSWER and data:
                self.wfile.write(data[: len(data) // 2])
                return self.cut()
            return self.send_body(data)

        def say(self, status: int, code: str) -> None:
            data = f"<Error><Code>{code}</Code><Message>made by the proxy</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.send_body(data)

        def send_body(self, data: bytes) -> None:
            if self.command != "HEAD":
                self.wfile.write(data)

        def cut(self) -> None:
            self.close_connection = True
            self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing: the proxy keeps its own record."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that went away is nothing to report."""

    with Server(("127.0.0.1", 0), Handler) as server:
        state.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield state
        finally:
            ended.set()
            server.shutdown()
            thread.join()


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A folder that takes no file of 4 MiB: a small disk where one may be mounted, else a limit on files' sizes."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode == 0:
        try:
            yield folder
        finally:
            subprocess.run(["umount", str(folder)], check=True)
        return
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * 1024 * 1024, limits[1]))
    try:
        yield folder
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
