"""A local node with the chart and Kueue on it."""

from collections.abc import Iterator

import pytest
from cluster.kueue.manager import Kueue
from cluster.node.conftest import node, pytest_runtest_makereport, release, s3, team, trainers
from cluster.node.node import Node

__all__ = ["node", "pytest_runtest_makereport", "release", "s3", "team", "trainers"]


@pytest.fixture(scope="session")
def prepared(release: Node, tmp_path_factory: pytest.TempPathFactory) -> Kueue:
    """Kueue, not running."""
    kueue = Kueue(release, tmp_path_factory.mktemp("kueue"))
    kueue.prepare()
    return kueue


@pytest.fixture(scope="module")
def kueue(prepared: Kueue) -> Iterator[Kueue]:
    """Kueue with the settings that it comes with."""
    with prepared.running():
        yield prepared
