"""A checkpoint of several parts: complete once every part is there, and not before."""

import json
import threading
from pathlib import Path

import pytest

from lmft_job.checkpoints import CheckpointUploader, complete, newest_verified, prune
from lmft_job.checkpoints.parts import PartOf, publish_parts, put_part
from lmft_job.errors import InterruptedRunError, RefusedError, UnavailableError
from lmft_job.storage import Store, open_store

NAME = "0123456789abcdef"


def nothing() -> None:
    """Nobody wants to stop."""


def out_of_time() -> None:
    raise InterruptedRunError("the time is over")


def folder(home: Path, part: int) -> Path:
    place = home / f"part-{part}"
    (place / "shards").mkdir(parents=True, exist_ok=True)
    (place / "shards" / f"{part}.bin").write_bytes(bytes([part]) * 1000)
    if part == 0:
        (place / "state.json").write_text("{}")
    return place


def first(store: Store, home: Path, parts: int = 2, stopped: object = nothing) -> object:
    return publish_parts(store, folder(home, 0), 3, 40, "pod", PartOf(0, parts, NAME), nothing, stopped)  # type: ignore[arg-type]


def other(store: Store, home: Path, part: int = 1) -> None:
    put_part(store, folder(home, part), 3, 40, "pod", PartOf(part, 2, NAME), nothing)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri())


def test_the_first_process_waits_for_the_parts_of_all_and_lists_their_files(store: Store, tmp_path: Path) -> None:
    # given a first process that has stored its part
    waits = threading.Thread(target=first, args=(store, tmp_path, 3))
    waits.start()
    other(store, tmp_path, 2)
    assert complete(store) == []
    # when the last of the others has stored its own
    other(store, tmp_path, 1)
    waits.join(60)
    # then the checkpoint has the files of all
    found = newest_verified(store, tmp_path / "fetched", print)
    assert found is not None
    assert (found.attempt, found.step) == (3, 40)
    there = sorted(path.relative_to(tmp_path / "fetched").as_posix() for path in (tmp_path / "fetched").rglob("*.*"))
    assert there == ["shards/0.bin", "shards/1.bin", "shards/2.bin", "state.json"]
    # and any process may fetch what it needs alone
    newest_verified(store, tmp_path / "fetched", print, needs=lambda names: {"shards/2.bin"} & set(names))
    assert [path.name for path in (tmp_path / "fetched").rglob("*.*")] == ["2.bin"]


def test_training_goes_on_in_every_process_until_the_slowest_has_stored_its_part(store: Store, tmp_path: Path) -> None:
    main, peer = (CheckpointUploader(store, 3, 2, print, pod="pod", index=index, count=2) for index in range(2))
    with main, peer:
        # given a first process that has handed its part over, and one whose part is not stored yet
        main.submit(folder(tmp_path, 0), 40, NAME)
        # when the first goes on: nothing is awaited, and there is no checkpoint
        for _ in range(3):
            main.check()
        assert (main.newest, complete(store)) == (None, [])
        # then it is complete once the other has stored its part, of which that one says nothing
        peer.submit(folder(tmp_path, 1), 40, NAME)
        found = main.wait()

    assert found is not None
    assert (found.step, len(complete(store)), peer.newest) == (40, 1, None)


def test_without_every_part_there_is_no_checkpoint(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError, match="the time is over"):
        first(store, tmp_path, stopped=out_of_time)

    assert complete(store) == []
    # and what was stored of it goes once a later attempt has a whole one
    publish_parts(store, folder(tmp_path, 0), 4, 40, "pod", PartOf(0, 1, NAME), nothing, nothing)
    prune(store, 2, 4)
    assert {item.key.split("/")[1] for item in store.list("checkpoints/")} == {"attempt-0004-pod"}


def test_a_part_is_stored_once(store: Store, tmp_path: Path) -> None:
    other(store, tmp_path)
    other(store, tmp_path)  # the answer to a request may be lost, and the request made again

    (tmp_path / "part-1" / "shards" / "1.bin").write_text("other content")
    with pytest.raises(RefusedError, match="another process runs as attempt 3"):
        put_part(store, tmp_path / "part-1", 3, 40, "pod", PartOf(1, 2, NAME), nothing)


def test_a_damaged_note_is_no_part(store: Store, tmp_path: Path) -> None:
    store.put_bytes(
        f"checkpoints/attempt-0003-pod/step-00000040/{NAME}/parts/1.json", json.dumps({"files": 1}).encode()
    )

    with pytest.raises(UnavailableError, match=r"parts/1\.json is damaged"):
        first(store, tmp_path)

    assert complete(store) == []
