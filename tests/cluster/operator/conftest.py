"""An API server with its controllers, and an operator beside it, shared by the tests of this folder."""

import functools
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.eventually import eventually
from cluster.operator.plane import CLUSTER, Api, Operator, Run
from cluster.ports import free_port, own_control_plane

from lmft_api.generate.crd import crd

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@functools.cache
def _environment(folder: Path) -> dict[str, str]:
    return dict(os.environ) | own_control_plane(folder)


@pytest.fixture(scope="session")
def plane() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="lmft-operator-"))  # pytest's own are cleared by other sessions
    environment = _environment(folder)
    subprocess.run([CLUSTER, "--control-plane", "up"], env=environment, check=True)
    yield folder
    subprocess.run([CLUSTER, "--control-plane", "down"], env=environment, check=True)


@pytest.fixture(scope="session")
def api(plane: Path) -> Api:
    api = Api(plane / "admin.conf")
    api.call("POST", DEFINITIONS, crd())
    established(api)
    return api


def established(api: Api) -> None:
    """Wait until runs can be made."""
    name = crd()["metadata"]["name"]
    eventually(
        lambda: any(
            c["type"] == "Established" and c["status"] == "True"
            for c in api.call("GET", f"{DEFINITIONS}/{name}").get("status", {}).get("conditions") or []
        ),
        "an established definition",
    )


@pytest.fixture
def component(plane: Path) -> Callable[[str, str], None]:
    """Stop or start a part of the control plane."""

    def act(verb: str, name: str) -> None:
        subprocess.run([CLUSTER, "--control-plane", verb, name], env=_environment(plane), check=True)

    return act


SETTINGS: dict[str, Any] = {
    "job": {"image": "localhost/stub:dev"},
    "policy": {
        "maxGpus": 1,
        "maxNodes": 4,
        "volumes": ["lmft-*"],
        "serviceAccounts": ["default", "lmft-*"],
        "annotationKeys": ["example.com/*"],
        "perNamespace": {"without-gpus": {"maxGpus": 0}},
    },
    "defaults": {"outputUri": "s3://platform"},
    "retries": {"initialSeconds": 1},
    "watch": {"resyncSeconds": 5},
}


@pytest.fixture(scope="module")
def operator(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    operator = Operator(tmp_path_factory.mktemp("operator"), api.kubeconfig, free_port(), SETTINGS).start()
    yield operator
    assert operator.stop() < 10
    assert "Traceback" not in operator.log.read_text()


@pytest.fixture
def new_run(api: Api, operator: Operator) -> Callable[..., Run]:
    """A run in a fresh namespace, or in a given one."""

    def make(namespace: str = "", name: str = "eli5", **spec: Any) -> Run:
        return Run(api, namespace or api.namespace(), name, spec).create()

    return make
