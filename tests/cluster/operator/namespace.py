"""A network of this process's own, in which there is IPv6 and nothing else."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ADDRESS = "fd00:6c6d:6674::1"
"""A unique local address (RFC 4193); on the loopback interface, for not every kernel has dummy ones."""
_NEW_NETWORK = 0x4000_0000  # CLONE_NEWNET of sched.h; os.unshare needs Python 3.12
_HERE = Path("/proc/thread-self/ns/net")


class NoNamespaceError(Exception):
    """This machine gives no network namespace, or none with IPv6."""


@contextmanager
def ipv6_alone() -> Iterator[str]:
    """Put this thread, and the processes that it starts, in a network that has ``::1`` and :data:`ADDRESS` only.

    Yields:
        the address, without brackets.

    Raises:
        NoNamespaceError: it takes root on Linux, ``ip``, and a kernel with IPv6.
    """
    if not _HERE.exists():
        raise NoNamespaceError("network namespaces are Linux's")
    before = os.open(_HERE, os.O_RDONLY)
    try:
        _call("unshare", _NEW_NETWORK)
        try:
            _arrange()
            yield ADDRESS
        finally:
            _call("setns", before, _NEW_NETWORK)
    finally:
        os.close(before)


def _arrange() -> None:
    _ip("link", "set", "lo", "up")
    _ip("-4", "address", "flush", "dev", "lo")
    # Without nodad an address may not be bound before duplicate address detection is over.
    _ip("-6", "address", "add", f"{ADDRESS}/64", "dev", "lo", "nodad")


def _ip(*arguments: str) -> None:
    try:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
    except FileNotFoundError as problem:
        raise NoNamespaceError("there is no ip (iproute2)") from problem
    except subprocess.CalledProcessError as problem:
        raise NoNamespaceError(f"ip {' '.join(arguments)}: {problem.stderr.strip()}") from problem


def _call(name: str, *arguments: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) != 0:
        raise NoNamespaceError(f"{name}: {os.strerror(ctypes.get_errno())}")
