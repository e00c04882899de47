"""Fixtures of the job's tests that need a process of their own."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import s3server

from lmft_job.storage import Store, open_store

# Tests fork attempts off this process; pools of threads that it had started would be missing, and waited for, there.
os.environ |= {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}


def pytest_report_header() -> str:
    return s3server.describe()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3server.S3Server]:
    """A real S3 server with the bucket ``models``."""
    with s3server.running(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def s3_store(s3: s3server.S3Server, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The bucket's root, for stores below it: one client, since making one takes a while."""
    return open_store(f"s3://{s3server.BUCKET}", s3.secret(tmp_path_factory.mktemp("secret")))


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are tried again as often as ever; the waits between are a fiftieth."""

    class Hurried:
        def __getattr__(self, name: str) -> Any:
            return getattr(time, name)

        def sleep(self, seconds: float) -> None:
            time.sleep(seconds / 50)

    monkeypatch.setattr("botocore.endpoint.time", Hurried())


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store of each kind with a folder of its own."""
    if request.param == "file":
        return open_store((tmp_path / "out put").as_uri())
    root: Store = request.getfixturevalue("s3_store")
    return root.child(f"{tmp_path.name}/deeper")
