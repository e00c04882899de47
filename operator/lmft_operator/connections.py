"""Bounds on a server's connections: how many at a time, and how long one may last.

Whoever reaches the port may open connections before any token is asked for. One that sends its headers a byte at a
time, or nothing at all, would hold a file descriptor for as long as it likes, and they are what the operator talks to
the API server with.
"""

import asyncio
from collections.abc import Callable
from typing import cast


class Bounded:
    """A factory of protocols around another one; give it to ``loop.create_server``.

    Args:
        make: the factory of the server proper.
        most: connections at a time; further ones are closed at once.
        seconds: longest life of a connection, idle or not.
        refused: told of each one too many.
    """

    def __init__(
        self, make: Callable[[], asyncio.Protocol], most: int, seconds: float, refused: Callable[[], None]
    ) -> None:
        self._make, self.most, self.seconds, self.refused = make, most, seconds, refused
        self.open = 0

    def __call__(self) -> asyncio.Protocol:
        """A protocol for a new connection."""
        return _Connection(self, self._make())


class _Connection(asyncio.Protocol):
    """Hands everything on to the server's own protocol, and ends the connection when its time is up."""

    def __init__(self, bounds: Bounded, inner: asyncio.Protocol) -> None:
        self._bounds, self._inner = bounds, inner
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        abort = cast(asyncio.Transport, transport).abort
        if self._bounds.open >= self._bounds.most:
            self._bounds.refused()
            abort()
            return
        self._bounds.open += 1
        self._end = asyncio.get_running_loop().call_later(self._bounds.seconds, abort)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._end is None:
            return
        self._end.cancel()
        self._bounds.open -= 1
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._end is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._end is not None else None

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
