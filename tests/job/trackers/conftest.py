"""A real MLflow server for all tests of trackers: it takes long to start."""

from collections.abc import Iterator

import pytest
from support import mlflow_server
from support.mlflow_server import MlflowServer


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with mlflow_server.running(tmp_path_factory.mktemp("mlflow")) as server:
        yield server
