"""What is told of downloads while they last: from the hub's stand-in with a slow body, and from storage."""

import shutil
import threading
from pathlib import Path

import pytest
from support.hub_data_double import hub

from lmft_job.models.sources.source import fetch_source
from lmft_job.process.transfers import Transfer, arriving, silent

MEGABYTES = 24


@pytest.fixture
def heard() -> list[Transfer]:
    return []


def test_a_model_of_the_hub_is_told_in_bytes_while_it_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: list[Transfer]
) -> None:
    from huggingface_hub import constants

    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"\0" * (MEGABYTES << 20))
    with hub(model, pause=0.02) as (address, _, _):
        for name, value in {
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "ENDPOINT": address,
            "HUGGINGFACE_CO_URL_TEMPLATE": address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
        }.items():
            monkeypatch.setattr(constants, name, value)

        found = fetch_source("team/model", tmp_path / "unused", field="spec.model.name", told=heard.append)

    *arrived, end = heard
    assert (found.path / "model.safetensors").stat().st_size == MEGABYTES << 20
    assert end.ended
    assert len({one.done for one in arrived}) > 1
    assert [one.done for one in arrived] == sorted(one.done for one in arrived)
    assert arrived[-1].total in (MEGABYTES << 20, (MEGABYTES << 20) + 2)
    assert {one.name for one in heard} == {"team/model"}


def test_what_is_written_below_a_folder_is_told_until_it_ends(tmp_path: Path, heard: list[Transfer]) -> None:
    folder, told = tmp_path / "files", threading.Event()

    def tell(transfer: Transfer) -> None:
        heard.append(transfer)
        told.set()

    folder.mkdir()
    (folder / "before").write_bytes(b"x" * 4_096)
    with arriving("s3://data/*.jsonl", folder, tell, 3_000):
        (folder / "inner").mkdir()
        (folder / "inner/part").write_bytes(b"x" * 2_000)
        assert told.wait(60)
        (folder / "inner/part").rename(folder / "whole")
        (folder / "inner").rmdir()
    shutil.rmtree(folder)

    assert heard[-1] == Transfer("s3://data/*.jsonl", heard[-1].done, 3_000, ended=True)
    assert 2_000 <= heard[-1].done <= 4_096 + 2_000


def test_where_nobody_listens_nothing_is_watched(tmp_path: Path) -> None:
    threads = threading.active_count()

    with arriving("x", tmp_path / "none", silent):
        assert threading.active_count() == threads
