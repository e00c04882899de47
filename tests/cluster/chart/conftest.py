"""The chart's tests bring an API server of their own: the definition is cluster-wide, and other tests need theirs."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.chart.server import CLUSTER, CRD, Server
from cluster.ports import own_control_plane


@pytest.fixture(scope="module")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("control-plane")
    environment = os.environ | own_control_plane(folder)
    subprocess.run([CLUSTER, "build", "helm", "helm3"], check=True)
    subprocess.run([CLUSTER, "--control-plane", "up", "--no-controllers"], env=environment, check=True)
    yield folder / "admin.conf"
    subprocess.run([CLUSTER, "--control-plane", "down"], env=environment, check=True)


@pytest.fixture
def server(api_server: Path) -> Iterator[Server]:
    server = Server(api_server)
    yield server
    for helm, namespace in dict.fromkeys(server.releases):
        server.run(helm, "uninstall", "lmft-lmfinetune", "-n", namespace, "--ignore-not-found")
    server.run("kubectl", "delete", "crd", CRD, "--ignore-not-found", "--wait=false")
    server.until_definition_is_gone()
