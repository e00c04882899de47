"""What a pod's processes share: one fetches, the others find it."""

import threading
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lmft_job.distributed.world import World
from lmft_job.errors import PeersError
from lmft_job.models.sources.source import SourceFolder
from lmft_job.stages.ranks.turns import from_first, once_in_pod


def process(home: Path, *, shared: bool = True, rank: int = 0) -> Any:
    watchdog = SimpleNamespace(paused=nullcontext)
    pod = home / "shared" if shared else None
    world = World(rank, 4, rank, 4, 0, 1)
    return SimpleNamespace(pod_folder=pod, folder=home / "own", watchdog=watchdog, check=lambda: None, world=world)


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


def test_what_the_first_process_finds_the_others_hear(tmp_path: Path) -> None:
    looked, heard = [], []

    def find() -> dict[str, Any]:
        looked.append(1)
        return {"limit": 48}

    others = [
        threading.Thread(target=lambda rank=rank: heard.append(from_first(process(tmp_path, rank=rank), "trial", find)))
        for rank in (1, 2, 3)
    ]
    for other in others:
        other.start()
    time.sleep(0.2)
    assert (looked, heard) == ([], [])

    assert from_first(process(tmp_path), "trial", find) == {"limit": 48}
    for other in others:
        other.join(60)

    assert (looked, heard) == ([1], [{"limit": 48}] * 3)


def test_where_the_first_process_finds_nothing_the_others_do_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMFT_RENDEZVOUS_SECONDS", "0.2")

    with pytest.raises(PeersError, match="rank 3 waited for the first rank of its pod to find the trial"):
        from_first(process(tmp_path, rank=3), "trial", dict)
