"""Answers kubelet's probes, however many other connections arrive at the same time.

A liveness probe that is not answered in time restarts the operator, so this port does as little as possible for each
connection: no HTTP library, no task, only a request's bytes and one response on the bare socket. A request that arrives
with its connection is answered on accepting it, before it could be closed to make room. And one turn of the event loop
accepts a few hundred connections: when its queue is full, the kernel makes clients retry only after one second, then
three, then seven.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping

from lmft_operator.process.limits import Limits
from lmft_operator.serving.connections import Door
from lmft_operator.serving.crowd import Crowd

logger = logging.getLogger(__name__)
Problem = Callable[[], str | None]
"""Returns None when all is well, else what is wrong."""
AT_ONCE = 256
"""Connections accepted in one turn of the event loop."""
_BACKLOG = 4096
"""Linux's default maximum (``net.core.somaxconn``)."""
_HEAD_BYTES = 8192
_KEPT_SECONDS = 0.1
"""Seconds for which the result of a check is reused: checking takes longer than answering."""
_PHRASES = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"} | {
    500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip


class Probes:
    """Answers GET and HEAD for a few paths; one request a connection.

    Args:
        checks: by path, the check and the HTTP status when it fails.
        limits: connection limits.
        dropped: called with the reason for each connection closed because of the client: ``full``, ``header``.
    """

    def __init__(
        self,
        checks: Mapping[str, tuple[Problem, int]],
        limits: Limits,
        dropped: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._checks, self._limits, self.dropped = checks, limits, dropped
        self._crowd: Crowd[_Asking] = Crowd(limits)
        self._found: dict[str, tuple[float, str | None]] = {}
        self._door: Door | None = None

    def __len__(self) -> int:
        """Number of open connections."""
        return len(self._crowd)

    def listen(self, host: str, port: int) -> int:
        """Start accepting; returns the port number. Raises OSError when it is in use."""
        self._door = Door(host, port, _BACKLOG, AT_ONCE, self._admit, self._crowd.make_room)
        return self._door.port

    async def stop(self) -> None:
        """Stop accepting, and close all connections."""
        if self._door is not None:
            self._door.close()
        for connection in self._crowd:
            connection.end()

    def _admit(self, accepted: socket.socket, source: str) -> None:
        connection = _Asking(self, accepted, source)
        if connection.read() or not self._crowd.make_room(source):
            connection.end()
            return
        self._crowd.add(connection)
        connection.wait(self._limits.header_seconds)

    def left(self, connection: "_Asking") -> None:
        """Remove a connection that has ended."""
        self._crowd.remove(connection)

    def answer(self, head: bytes) -> bytes:
        """The response to a request's head."""
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _response(400, "not an HTTP request")
        method, path = words[0], words[1].partition("?")[0]
        if path not in self._checks:
            return _response(404, "not found", method)
        if method not in ("GET", "HEAD"):
            return _response(405, "only GET and HEAD", method)
        problem = self._problem(path)
        return _response(self._checks[path][1] if problem else 200, problem or "ok", method)

    def _problem(self, path: str) -> str | None:
        now = asyncio.get_running_loop().time()
        when, problem = self._found.get(path, (float("-inf"), None))
        if now - when > _KEPT_SECONDS:
            try:
                problem = self._checks[path][0]()
            except Exception as error:  # whatever it is, a probe must be answered
                logger.exception("the check of %s fails", path)
                problem = f"{type(error).__name__}: {error}"
            self._found[path] = now, problem
        return problem


class _Asking:
    """One connection, until the head of its request is complete."""

    def __init__(self, probes: Probes, accepted: socket.socket, source: str) -> None:
        self.source = source
        self.client: str | None = None
        self.answering = False
        self._probes, self._socket = probes, accepted
        self._head = b""
        self._loop = asyncio.get_running_loop()
        self._patience: asyncio.TimerHandle | None = None

    def wait(self, seconds: float) -> None:
        """Wait up to ``seconds`` for the rest of the head."""
        self._patience = self._loop.call_later(seconds, self.end, "header")
        self._loop.add_reader(self._socket, self._more)

    def end(self, reason: str | None = None) -> None:
        """Close it now; ``reason`` is set, and counted, only if the client caused it."""
        if reason is not None:
            self._probes.dropped(reason)
        if self._patience is not None:
            self._patience.cancel()
            self._loop.remove_reader(self._socket)
        self._probes.left(self)
        self._socket.close()

    def _more(self) -> None:
        if self.read():
            self.end()

    def read(self) -> bool:
        """Read what has arrived, and answer it if it is a request; returns whether the connection is finished."""
        try:
            data = self._socket.recv(_HEAD_BYTES)
            self._head += data
            if b"\r\n\r\n" in self._head or len(self._head) > _HEAD_BYTES:
                self._socket.send(self._probes.answer(self._head))  # a few hundred bytes always fit
                return True
        except BlockingIOError:
            return False
        except OSError:  # such as a reset
            return True
        return not data


def _response(status: int, text: str, method: str = "GET") -> bytes:
    """One whole HTTP response, after which the connection is closed."""
    body = f"{text}\n".encode()
    head = (
        f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == "HEAD" else body)
