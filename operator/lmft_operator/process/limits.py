"""Bounds of a port: how many connections, of whom, and for how long."""

from dataclasses import dataclass


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
