"""A local node with the chart on it; no run here takes the job's image, which is gigabytes."""

import os
import subprocess
from collections.abc import Iterator

import pytest
from cluster.node.conftest import release, s3, team
from cluster.node.node import CLUSTER, Node, local_node

__all__ = ["release", "s3", "team"]


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    node = local_node(("operator", "stub"))
    yield node
    for namespace in node.namespaces:
        node.kubectl("delete", "namespace", namespace, "--wait=false", check=False)
    if not os.environ.get("LMFT_E2E_KEEP"):
        subprocess.run([CLUSTER, "down"], check=True)
