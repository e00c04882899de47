"""Attempts of several ranks, each a forked child that torchrun's variables make a rank."""

import socket
from pathlib import Path
from typing import Any

from support.forked import Child, attempt


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start_ranks(
    home: Path, spec: dict[str, Any], size: int, number: int = 1, *, pods: int = 1, **options: Any
) -> list[Child]:
    """Start an attempt of several ranks, evenly in pods."""
    port, each = free_port(), size // pods
    return [
        attempt(home, spec, number, variables=_variables(rank, size, each, port), **options) for rank in range(size)
    ]


def _variables(rank: int, size: int, each: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank % each),
        "LOCAL_WORLD_SIZE": str(each),
        "GROUP_RANK": str(rank // each),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "LMFT_RENDEZVOUS_SECONDS": "100",
    }


def end_ranks(children: list[Child]) -> list[int]:
    """Wait for all; their exit codes."""
    return [child.wait() for child in children]


def complete_ranks(home: Path, spec: dict[str, Any], size: int, number: int = 1, **options: Any) -> list[Child]:
    """Run an attempt of several ranks to its end; all must be done."""
    children = start_ranks(home, spec, size, number, **options)
    codes = end_ranks(children)
    logs = "\n".join(child.log.read_text()[-2500:] + "\n".join(child.lines[-3:]) for child in children)
    assert codes == [0] * size, logs
    return children
