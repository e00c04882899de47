"""Ports for servers of a test's own, so that several test sessions get along on one machine."""

import socket
from pathlib import Path


def free_port(count: int = 1) -> int:
    """The first of so many ports in a row that nobody listens on."""
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
        if all(_free(port + number) for number in range(count)):
            return port


def own_control_plane(folder: Path) -> dict[str, str]:
    """Environment of tests/cluster/local/cluster for a control plane in a folder; etcd takes two ports."""
    return {
        "LMFT_CONTROL_PLANE_DIR": str(folder),
        "LMFT_CONTROL_PLANE_PORT": str(free_port()),
        "LMFT_CONTROL_PLANE_ETCD_PORT": str(free_port(2)),
    }


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
