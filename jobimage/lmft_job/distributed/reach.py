"""Whether another pod can be reached, and what keeps it from being: its name, its port, or a policy."""

import errno
import socket
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from lmft_api.text.wording import first_line

CONNECT_SECONDS = 5.0

Resolve = Callable[[str, int], list[tuple[Any, ...]]]
"""Addresses of a name, as ``socket.getaddrinfo`` gives them."""


class Trouble(StrEnum):
    """What keeps a pod from being reached."""

    ABSENT = "absent"
    """The names of the attempt resolve, but not that of the pod: it has not begun."""
    NAME = "name resolution"
    PORT = "port"
    POLICY = "policy"


class UnreachableError(Exception):
    """A pod cannot be reached; the message is for people.

    Attributes:
        trouble: which kind.
    """

    def __init__(self, trouble: Trouble, words: str) -> None:
        super().__init__(words)
        self.trouble = trouble


def _getaddrinfo(name: str, port: int) -> list[tuple[Any, ...]]:
    return list(socket.getaddrinfo(name, port, type=socket.SOCK_STREAM))


def connect(name: str, port: int, timeout: float = CONNECT_SECONDS, resolve: Resolve = _getaddrinfo) -> socket.socket:
    """A connection to a pod of the attempt.

    Args:
        name: ``<pod>.<service>``, or an address.
        port: its port.
        timeout: seconds for each address of the name.
        resolve: replaced in tests.

    Raises:
        UnreachableError: there is none.
    """
    try:
        addresses = resolve(name, port)
    except (OSError, UnicodeError) as error:
        raise _unresolved(name, port, error, resolve) from error
    trouble: OSError = OSError("no address")
    for family, kind, protocol, _, address in addresses:
        connection = socket.socket(family, kind, protocol)
        connection.settimeout(timeout)
        try:
            connection.connect(address)
        except OSError as error:
            connection.close()
            trouble = error
        else:
            return connection
    raise _unconnected(name, port, timeout, trouble) from trouble


def _unresolved(name: str, port: int, error: Exception, resolve: Resolve) -> UnreachableError:
    _, _, service = name.partition(".")
    said = first_line(error)
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
        return UnreachableError(
            Trouble.NAME,
            f"name resolution: the cluster's DNS does not answer for {name} ({said}); a policy may forbid it",
        )
    try:
        resolved = bool(service) and bool(resolve(service, port))
    except (OSError, UnicodeError):
        resolved = False
    if resolved:
        return UnreachableError(Trouble.ABSENT, f"the first pod has not begun: {service} resolves, {name} does not")
    return UnreachableError(
        Trouble.NAME,
        f"name resolution: {name} does not resolve ({said}); look for the Service {service or name} of the attempt, "
        "and at the cluster's DNS",
    )


def _unconnected(name: str, port: int, timeout: float, error: OSError) -> UnreachableError:
    if error.errno == errno.ECONNREFUSED:
        return UnreachableError(
            Trouble.PORT,
            f"port: {name} refuses connections to {port}; its container does not run, or a policy rejects them",
        )
    if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
        said = f"no answer within {timeout:g} seconds"
    else:
        said = first_line(error)
    return UnreachableError(
        Trouble.POLICY,
        f"policy: {name} does not answer on port {port} ({said}); a NetworkPolicy or a firewall drops what the pods of "
        "a run send each other. They need all TCP ports of each other",
    )
