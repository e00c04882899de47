"""Limits on a port's connections, from the moment they are accepted: how many, from whom, and for how long.

Whoever reaches a port may open connections before any token is required. One that sends nothing, its handshake a byte
at a time, or half a request would hold a file descriptor and memory indefinitely, which the operator needs for talking
to the API server. So a connection is counted when it is accepted and costs only a socket until its first byte arrives:
TLS and HTTP are set up only then, for a few connections in each turn of the event loop. A full port closes its oldest
unauthenticated connection.
"""

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable
from typing import cast

from lmft_operator.process.limits import Limits
from lmft_operator.serving.crowd import Crowd

logger = logging.getLogger(__name__)
AT_ONCE = 4
"""Connections accepted, and connections set up, in one turn of the event loop. Then other tasks run: a handshake
takes milliseconds, and a request that has arrived must be answered before a flood takes its place."""
_BACKLOG = 1024
_PAUSE_SECONDS = 1.0
"""Seconds without accepting when the process has no file descriptor left and no connection to close."""


class Listener:
    """Accepts connections, within limits, for a server's own protocols.

    Args:
        make: protocol factory of the server.
        limits: limits of this port.
        tls: TLS context for HTTPS.
        dropped: called with the reason for each connection closed because of the client: ``full``, ``handshake``,
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
        self._crowd: Crowd[_Connection] = Crowd(limits)
        self._protocols: dict[asyncio.BaseProtocol, _Connection] = {}
        self._speaking: dict[_Connection, None] = {}
        self._door: Door | None = None

    def __len__(self) -> int:
        """Number of open connections."""
        return len(self._crowd)

    def listen(self, host: str, port: int) -> int:
        """Start accepting connections.

        Args:
            host: an address of this machine; empty for all, IPv6 and IPv4.
            port: port number; 0 chooses a free one.

        Returns:
            The port number.

        Raises:
            OSError: the address is in use, or is not an address of this machine.
        """
        self._door = Door(host, port, _BACKLOG, AT_ONCE, self._admit, self._crowd.make_room)
        return self._door.port

    def close(self) -> None:
        """Stop accepting, and close all connections."""
        if self._door is not None:
            self._door.close()
        for connection in self._crowd:
            connection.end()

    def request_arrived(self, protocol: asyncio.BaseProtocol) -> None:
        """Record that the server has read a request's head on a connection."""
        if connection := self._protocols.get(protocol):
            connection.request_arrived()

    def trust(self, protocol: asyncio.BaseProtocol, client: str) -> None:
        """Mark a connection as authenticated: it is not closed for others, unless its client holds many."""
        if connection := self._protocols.get(protocol):
            self._crowd.trust(connection, client)

    def _admit(self, accepted: socket.socket, source: str) -> None:
        if self._crowd.make_room(source):
            self._crowd.add(_Connection(self, accepted, source))
        else:
            self.dropped("full")
            accepted.close()

    def speaks(self, connection: "_Connection") -> None:
        """Queue a connection for its set-up when its first byte arrives."""
        if not self._speaking:
            asyncio.get_running_loop().call_soon(self._set_up_some)
        self._speaking[connection] = None

    def _set_up_some(self) -> None:
        # The newest first, and as many as are accepted: a burst of active clients delays nobody who comes later.
        for _ in range(min(AT_ONCE, len(self._speaking))):
            self._speaking.popitem()[0].set_up()
        if self._speaking:
            asyncio.get_running_loop().call_soon(self._set_up_some)

    def opened(self, connection: "_Connection", protocol: asyncio.BaseProtocol) -> None:
        """Record the protocol of a connection."""
        self._protocols[protocol] = connection

    def ended(self, connection: "_Connection", protocol: asyncio.BaseProtocol | None) -> None:
        """Remove a connection that has ended."""
        self._crowd.remove(connection)
        self._speaking.pop(connection, None)
        if protocol is not None:
            self._protocols.pop(protocol, None)


class _Connection(asyncio.Protocol):
    """One connection: a bare socket, then a handshake, then the server's own protocol; closed when its time is up."""

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
        """Close it now; ``reason`` is set, and counted, only if the client caused it."""
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

    def request_arrived(self) -> None:
        """A request's head has arrived: its time limit ends here, since the server answers soon."""
        self.answering = True
        self._step.cancel()

    def _finish(self) -> None:
        self._ended = True
        self._life.cancel()
        self._step.cancel()
        self._listener.ended(self, self._inner)

    def _speaks(self) -> None:
        """Called when the first byte, or the end of the stream, has arrived."""
        self._loop.remove_reader(self._socket)
        if _at_end(self._socket):
            self.end()
        else:
            self._listener.speaks(self)

    def set_up(self) -> None:
        """Start the handshake and the protocol."""
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
        # Whatever a client's bytes do to a handshake ends this connection and nothing else.
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


class Door:
    """A listening socket: accepts connections, at most a fixed number in each turn of the event loop.

    Args:
        host: an address of this machine; empty for all, IPv6 and IPv4.
        port: port number; 0 chooses a free one.
        backlog: connections that wait to be accepted; the kernel makes further ones retry a second later.
        at_once: most connections accepted in one turn.
        admit: called with each socket and its source address.
        make_room: closes a connection when the process has no file descriptor left; False when there is none to close.
    """

    def __init__(
        self,
        host: str,
        port: int,
        backlog: int,
        at_once: int,
        admit: Callable[[socket.socket, str], None],
        make_room: Callable[[], bool],
    ) -> None:
        self._at_once, self._admit, self._make_room = at_once, admit, make_room
        self._socket: socket.socket | None = _bound(host, port, backlog)
        self._socket.setblocking(False)
        self.port = int(self._socket.getsockname()[1])
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._accept)

    def close(self) -> None:
        """Stop accepting."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _accept(self) -> None:
        for _ in range(self._at_once):
            try:
                accepted, address = cast(socket.socket, self._socket).accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as problem:  # no file descriptor, or no memory for one
                if not self._make_room():
                    self._pause(problem)
                return
            accepted.setblocking(False)
            self._admit(accepted, _source(address[0]))

    def _pause(self, problem: OSError) -> None:
        logger.warning("accepting no connections for %.0f s: %s", _PAUSE_SECONDS, problem)
        self._loop.remove_reader(cast(socket.socket, self._socket))
        self._loop.call_later(
            _PAUSE_SECONDS, lambda: self._socket and self._loop.add_reader(self._socket, self._accept)
        )


def _source(address: str) -> str:
    """The address without its zone; an IPv4-mapped IPv6 address as IPv4."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def _at_end(accepted: socket.socket) -> bool:
    """Whether the client has closed a connection without sending anything."""
    try:
        return not accepted.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _bound(host: str, port: int, backlog: int) -> socket.socket:
    if not host and socket.has_dualstack_ipv6():
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=backlog)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=backlog)
