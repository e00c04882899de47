"""Ports for servers of a test's own, so that several test sessions get along on one machine."""

import random
import socket
from pathlib import Path

# Below the range that outgoing connections take theirs from: one of those may come before a server has started.
LOWEST, HIGHEST = 20_000, 29_000


def free_port(count: int = 1) -> int:
    """The first of so many ports in a row that nobody has."""
    for _ in range(1000):
        port = random.randrange(LOWEST, HIGHEST)
        if all(_free(port + number) for number in range(count)):
            return port
    raise AssertionError(f"no {count} free ports from {LOWEST} to {HIGHEST}")


def own_control_plane(folder: Path) -> dict[str, str]:
    """Environment of tests/cluster/local/cluster for a control plane in a folder; etcd takes two ports."""
    return {
        "LMFT_CONTROL_PLANE_DIR": str(folder),
        "LMFT_CONTROL_PLANE_PORT": str(free_port()),
        "LMFT_CONTROL_PLANE_ETCD_PORT": str(free_port(2)),
    }


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - as the API server does it
        except OSError:
            return False
    return True
