"""What a pod's processes share: one fetches, the others find it."""

import threading
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lmft_job.models.sources.source import SourceFolder
from lmft_job.stages.ranks.turns import once_in_pod


def process(home: Path, *, shared: bool = True) -> Any:
    watchdog = SimpleNamespace(paused=nullcontext)
    pod = home / "shared" if shared else None
    return SimpleNamespace(pod_folder=pod, folder=home / "own", watchdog=watchdog, check=lambda: None)


def test_of_a_pods_processes_one_fetches_and_all_have_it(tmp_path: Path) -> None:
    fetched, got = [], []

    def fetch(folder: Path) -> SourceFolder:
        fetched.append(folder)
        time.sleep(0.3)
        return SourceFolder(folder, "abc")

    ranks = [
        threading.Thread(target=lambda: got.append(once_in_pod(process(tmp_path), "model", fetch))) for _ in "1234"
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)

    assert fetched == [tmp_path / "shared/sources/model"]
    assert got == [SourceFolder(fetched[0], "abc")] * 4


def test_if_it_fails_the_next_one_tries(tmp_path: Path) -> None:
    def fails(folder: Path) -> SourceFolder:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        once_in_pod(process(tmp_path), "model", fails)

    assert once_in_pod(process(tmp_path), "model", SourceFolder).path == tmp_path / "shared/sources/model"


def test_alone_it_is_in_the_folder_of_the_process(tmp_path: Path) -> None:
    assert once_in_pod(process(tmp_path, shared=False), "model", SourceFolder).path == tmp_path / "own/sources/model"
