"""Bounds on a port's connections, from the moment they are accepted: how many, of whom, and how long each may last.

Whoever reaches a port may open connections before any token is asked for. One that sends nothing, its handshake a byte
at a time, or half a request would hold a file descriptor and memory for as long as it likes, and they are what the
operator talks to the API server with. So a connection is counted when it is accepted and costs a socket until its first
byte comes: TLS and HTTP are set up only then. A full port closes its oldest connection that has proven nothing.
"""

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

logger = logging.getLogger(__name__)
_ACCEPTS_AT_ONCE = 8
"""Then the loop gets on with the rest: a request that has come must be answered before a flood takes its place."""
_PAUSE_SECONDS = 1.0
"""Nothing is accepted for so long when the process has no file descriptor left and no connection to close."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a port.

    Attributes:
        most: connections at a time.
        per_source: of them from one address.
        per_client: of them that one proven client may hold on to when the port is full.
        handshake_seconds: until the first byte has come and the TLS handshake is done.
        header_seconds: from then until a request's head is complete.
        seconds: longest life of a connection, idle or not.
    """

    most: int = 512
    per_source: int = 256
    per_client: int = 4
    handshake_seconds: float = 5.0
    header_seconds: float = 5.0
    seconds: float = 10.0


class Listener:
    """Accepts connections, within limits, for a server's own protocols.

    Args:
        make: the factory of the server proper.
        limits: of this port.
        tls: for HTTPS.
        dropped: told why, for each connection that is closed on the other side's account: ``full``, ``handshake``,
            ``header``, ``time``.
    """

    def __init__(
        self,
        make: Callable[[], asyncio.Protocol],
        limits: Limits,
        tls: ssl.SSLContext | None = None,
        dropped: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.make, self.limits, self.tls, self.dropped = make, limits, tls, dropped
        self._open: dict[_Connection, None] = {}  # the oldest first
        self._sources: dict[str, dict[_Connection, None]] = {}
        self._clients: dict[str, dict[_Connection, None]] = {}
        self._protocols: dict[asyncio.BaseProtocol, _Connection] = {}
        self._socket: socket.socket | None = None

    def __len__(self) -> int:
        """Connections at the moment."""
        return len(self._open)

    def listen(self, host: str, port: int) -> int:
        """Begin to accept.

        Args:
            host: an address of this machine; empty for all of them, IPv6 and IPv4.
            port: 0 takes a free one.

        Returns:
            The port.

        Raises:
            OSError: the address is taken, or not of this machine.
        """
        self._socket = _bound(host, port)
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._accept)
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Accept nothing more, and close what is open."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        for connection in list(self._open):
            connection.end()

    def heard(self, protocol: asyncio.BaseProtocol) -> None:
        """The server has read a request's head on a connection."""
        if connection := self._protocols.get(protocol):
            connection.heard()

    def trust(self, protocol: asyncio.BaseProtocol, client: str) -> None:
        """A connection has proven whose it is: it is closed for no other's sake, unless its client holds many."""
        connection = self._protocols.get(protocol)
        if connection is None:
            return
        self._forget_client(connection)
        connection.client = client
        held = self._clients.setdefault(client, {})
        held[connection] = None
        if len(held) > self.limits.per_client:
            self._forget_client(next(iter(held)))

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                accepted, address = cast(socket.socket, self._socket).accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as problem:  # no file descriptor, or no memory for one
                self._make_room(problem)
                return
            accepted.setblocking(False)
            self._admit(accepted, _source(address[0]))

    def _make_room(self, problem: OSError) -> None:
        victim = _oldest_unproven(self._open)
        if victim is not None:
            victim.end("full")
            return
        logger.warning("accepting nothing for %.0f s: %s", _PAUSE_SECONDS, problem)
        loop, listener = asyncio.get_running_loop(), cast(socket.socket, self._socket)
        loop.remove_reader(listener)
        loop.call_later(_PAUSE_SECONDS, lambda: self._socket and loop.add_reader(self._socket, self._accept))

    def _admit(self, accepted: socket.socket, source: str) -> None:
        of_source = self._sources.get(source, {})
        crowd = of_source if len(of_source) >= self.limits.per_source else self._open
        if crowd is of_source or len(crowd) >= self.limits.most:
            victim = _oldest_unproven(crowd)
            if victim is None:
                self.dropped("full")
                accepted.close()
                return
            victim.end("full")
        connection = _Connection(self, accepted, source)
        self._open[connection] = None
        self._sources.setdefault(source, {})[connection] = None

    def opened(self, connection: "_Connection", protocol: asyncio.BaseProtocol) -> None:
        """A connection has a protocol by now."""
        self._protocols[protocol] = connection

    def ended(self, connection: "_Connection", protocol: asyncio.BaseProtocol | None) -> None:
        """A connection gives its place back."""
        self._open.pop(connection, None)
        _discard(self._sources, connection.source, connection)
        self._forget_client(connection)
        if protocol is not None:
            self._protocols.pop(protocol, None)

    def _forget_client(self, connection: "_Connection") -> None:
        if connection.client is not None:
            _discard(self._clients, connection.client, connection)
            connection.client = None


class _Connection(asyncio.Protocol):
    """One connection: a bare socket, then a handshake, then the server's own protocol; ended when its time is up."""

    def __init__(self, listener: Listener, accepted: socket.socket, source: str) -> None:
        self.source = source
        self.client: str | None = None
        self.answering = False
        self._listener, self._socket = listener, accepted
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._setting_up: asyncio.Task[None] | None = None
        self._handed_over = self._ended = False
        self._loop = asyncio.get_running_loop()
        limits = listener.limits
        self._life = self._loop.call_later(limits.seconds, self.end, "time")
        self._step = self._loop.call_later(limits.handshake_seconds, self.end, "handshake")
        self._loop.add_reader(accepted, self._speaks)

    def end(self, reason: str | None = None) -> None:
        """Close it now; the reason is counted when it lies with the other side."""
        if self._ended:
            return
        if reason is not None:
            self._listener.dropped(reason)
        if self._transport is not None:
            self._transport.abort()
        elif self._setting_up is not None:
            self._setting_up.cancel()
        else:
            self._loop.remove_reader(self._socket)
            self._socket.close()
        self._finish()

    def heard(self) -> None:
        """A request's head has come: the server answers it by itself, and soon."""
        self.answering = True
        self._step.cancel()

    def _finish(self) -> None:
        self._ended = True
        self._life.cancel()
        self._step.cancel()
        self._listener.ended(self, self._inner)

    def _speaks(self) -> None:
        """The first byte has come, or the end."""
        self._loop.remove_reader(self._socket)
        self._setting_up = self._loop.create_task(self._set_up())
        self._setting_up.add_done_callback(self._set_up_ended)

    async def _set_up(self) -> None:
        self._handed_over = True  # from here on the transport closes the socket
        if (tls := self._listener.tls) is None:
            await self._loop.connect_accepted_socket(lambda: self, self._socket)
            return
        await self._loop.connect_accepted_socket(
            lambda: self, self._socket, ssl=tls, ssl_handshake_timeout=self._listener.limits.handshake_seconds,
            ssl_shutdown_timeout=1.0,
        )  # fmt: skip

    def _set_up_ended(self, task: asyncio.Task[None]) -> None:
        if not self._handed_over:
            self._socket.close()
        # Whatever a stranger's bytes make of a handshake ends this connection and nothing else.
        if not task.cancelled() and task.exception() is not None:
            self.end("handshake")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._ended:
            self._transport.abort()
            return
        self._step.cancel()
        self._step = self._loop.call_later(self._listener.limits.header_seconds, self.end, "header")
        self._inner = self._listener.make()
        self._listener.opened(self, self._inner)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended:
            self._finish()
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._inner is not None and not self._ended:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._inner is not None else None

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()


def _oldest_unproven(crowd: dict[_Connection, None]) -> _Connection | None:
    unproven = (connection for connection in crowd if connection.client is None)
    first = next(unproven, None)
    if first is None or not first.answering:
        return first
    return next((connection for connection in unproven if not connection.answering), first)


def _discard(groups: dict[str, dict[_Connection, None]], name: str, connection: _Connection) -> None:
    group = groups.get(name)
    if group is not None:
        group.pop(connection, None)
        if not group:
            del groups[name]


def _source(address: str) -> str:
    """An address without its zone; IPv4 that came in over IPv6 is IPv4."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def _bound(host: str, port: int) -> socket.socket:
    if not host and socket.has_dualstack_ipv6():
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)
