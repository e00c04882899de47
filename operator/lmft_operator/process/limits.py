"""Connection limits of a port: how many, from whom, and for how long."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Connection limits of a port.

    Attributes:
        most: connections at a time.
        per_source: connections from one IP address.
        per_client: connections that one authenticated client keeps when the port is full.
        handshake_seconds: time until the first byte has arrived and the TLS handshake is done.
        header_seconds: time from then until a request's head is complete.
        seconds: longest duration of a connection, idle or not.
    """

    most: int = 512
    per_source: int = 256
    per_client: int = 4
    handshake_seconds: float = 5.0
    header_seconds: float = 5.0
    seconds: float = 10.0
