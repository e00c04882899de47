"""Which connections of a port are open, and which one is closed to make room: bookkeeping without any I/O."""

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from lmft_operator.process.limits import Limits


class Member(Protocol):
    """A connection, as seen by the limits."""

    source: str
    client: str | None
    answering: bool

    def end(self, reason: str | None = None) -> None:
        """Close it now, and remove it; ``reason`` is set, and counted, only if the client caused it."""


M = TypeVar("M", bound=Member)


class Crowd(Generic[M]):
    """The open connections of a port.

    Args:
        limits: limits of the port.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open: dict[M, None] = {}  # oldest first
        self._sources: dict[str, dict[M, None]] = {}
        self._clients: dict[str, dict[M, None]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[M]:
        return iter(list(self._open))

    def make_room(self, source: str | None = None) -> bool:
        """Close a connection, if necessary, so that one from ``source`` can be accepted; False if it cannot be.

        Without a source: close one in any case.
        """
        crowd = self._open
        if source is not None:
            of_source = self._sources.get(source, {})
            if len(of_source) >= self._limits.per_source:
                crowd = of_source
            elif len(crowd) < self._limits.most:
                return True
        victim = _oldest_unproven(crowd)
        if victim is not None:
            victim.end("full")
        return victim is not None

    def add(self, connection: M) -> None:
        """Add a connection, as the newest."""
        self._open[connection] = None
        self._sources.setdefault(connection.source, {})[connection] = None

    def remove(self, connection: M) -> None:
        """Remove a connection."""
        self._open.pop(connection, None)
        _discard(self._sources, connection.source, connection)
        self._forget_client(connection)

    def trust(self, connection: M, client: str) -> None:
        """Mark a connection as authenticated: it is not closed for others, unless its client holds many."""
        self._forget_client(connection)
        connection.client = client
        held = self._clients.setdefault(client, {})
        held[connection] = None
        if len(held) > self._limits.per_client:
            self._forget_client(next(iter(held)))

    def _forget_client(self, connection: M) -> None:
        if connection.client is not None:
            _discard(self._clients, connection.client, connection)
            connection.client = None


def _oldest_unproven(crowd: dict[M, None]) -> M | None:
    unproven = (connection for connection in crowd if connection.client is None)
    first = next(unproven, None)
    if first is None or not first.answering:
        return first
    return next((connection for connection in unproven if not connection.answering), first)


def _discard(groups: dict[str, dict[M, None]], name: str, connection: M) -> None:
    group = groups.get(name)
    if group is not None:
        group.pop(connection, None)
        if not group:
            del groups[name]
