"""One interface, two kinds of storage: what every store promises, asked of a folder and of a real S3 server."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.faults import small_disk
from support.s3server import BUCKET, S3Server, running

from lmft_api.reasons import ExitCode, Reason
from lmft_job.errors import InterruptedRunError, InvalidError, JobError, RefusedError
from lmft_job.storage import ObjectMissingError, Store, expand, fetch_folder, open_store
from lmft_job.storage.s3 import S3Settings, S3Store
from lmft_job.storage.store import PURPOSES

LARGE = 20 * 1024 * 1024 + 17  # three parts


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def names(store: Store, prefix: str = "") -> list[str]:
    return [item.key for item in store.list(prefix)]


@pytest.mark.parametrize("size", [0, 1, 1000, LARGE])
def test_a_file_comes_back_and_both_ways_name_its_sha256(store: Store, tmp_path: Path, size: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    source = written(tmp_path / "source", data[:size])

    sent = store.put_file("folder/a file é.bin", source)
    received = store.get_file("folder/a file é.bin", tmp_path / "copy")

    assert sent == received == hashlib.sha256(data[:size]).hexdigest()
    assert (tmp_path / "copy").read_bytes() == data[:size]
    assert [(item.key, item.size) for item in store.list("folder/")] == [("folder/a file é.bin", size)]


def test_bytes_come_back_and_what_is_absent_is_none(store: Store) -> None:
    store.put_bytes("a/b", b"one")
    store.put_bytes("a/b", b"two")

    assert store.get_bytes("a/b") == b"two"
    assert store.get_bytes("a/c") is None
    assert store.get_bytes("a") is None


def test_only_the_first_of_two_conditional_puts_wins(store: Store) -> None:
    assert store.put_if_absent("x/MANIFEST.json", b"mine")
    assert not store.put_if_absent("x/MANIFEST.json", b"yours")
    assert store.put_if_absent("x/MANIFEST.json", b"mine")
    assert store.get_bytes("x/MANIFEST.json") == b"mine"


@pytest.fixture(params=["file", "s3"])
def atomic(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of each kind whose conditional writes are atomic."""
    if request.param == "file":
        yield open_store(tmp_path.as_uri())
    else:
        with running(tmp_path, one_at_a_time=True) as server:
            yield open_store(f"s3://{BUCKET}", server.secret(tmp_path / "secret"))


def test_of_many_writers_at_once_exactly_one_wins(atomic: Store) -> None:
    won = []
    writers = [
        threading.Thread(target=lambda number=number: won.append(atomic.put_if_absent("race", b"%d" % number)))
        for number in range(8)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert sorted(won) == [False] * 7 + [True]


def test_a_listing_is_sorted_goes_by_prefix_and_is_relative(store: Store) -> None:
    for key in ("b/2", "a/1", "b/10", "bb"):
        store.put_bytes(key, key.encode())

    assert names(store) == ["a/1", "b/10", "b/2", "bb"]
    assert names(store, "b/") == ["b/10", "b/2"]
    assert names(store, "b/1") == ["b/10"]
    assert names(store, "none/") == []
    assert names(store.child("b")) == ["10", "2"]
    assert store.child("b").url("2") == store.url("b/2")


def test_a_listing_goes_beyond_one_page(s3: S3Server, tmp_path: Path) -> None:
    settings = S3Settings(listing_page=3)
    store = S3Store.connect(BUCKET, tmp_path.name, PURPOSES["output"], s3.secret(tmp_path / "secret"), settings)
    for number in range(8):
        store.put_bytes(f"many/{number}", b"")

    assert names(store, "many/") == [f"many/{number}" for number in range(8)]


def test_what_is_deleted_is_gone_and_deleting_again_is_fine(store: Store) -> None:
    store.put_bytes("a/b/c", b"1")

    store.delete(["a/b/c", "a/never"])
    store.delete(["a/b/c"])

    assert names(store) == []


def test_the_probe_leaves_nothing(store: Store) -> None:
    store.probe_write()

    assert names(store) == []


def test_an_absent_object_is_told_by_its_address(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ObjectMissingError, match=r"spec\.output\.uri: there is no (file|object) .*gone"):
        store.get_file("gone", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("key", ["../outside", "a/../../outside", "/etc/passwd", "a//b", "", ".", "a/..", "a\0b"])
def test_a_key_that_leaves_the_root_is_refused(store: Store, tmp_path: Path, key: str) -> None:
    actions: list[Callable[[], object]] = [
        lambda: store.put_bytes(key, b"x"),
        lambda: store.get_bytes(key),
        lambda: store.get_file(key, tmp_path / "copy"),
        lambda: store.delete([key]),
    ]
    for action in actions:
        with pytest.raises(RefusedError, match="outside the storage folder") as caught:
            action()
        assert caught.value.exit_code == ExitCode.REFUSED
    assert not (tmp_path / "outside").exists()


def test_a_transfer_stops_where_it_is_told_to_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    source = written(tmp_path / "source", bytes(LARGE))
    asked = []

    def stop_soon() -> None:
        asked.append(1)
        if len(asked) > 2:
            raise InterruptedRunError("stopped")

    with pytest.raises(InterruptedRunError, match="stopped"):
        store.put_file("large", source, stop_soon)
    store.put_file("large2", source)
    with pytest.raises(InterruptedRunError, match="stopped"):
        store.get_file("large2", tmp_path / "copy", stop_soon)

    assert names(store) == ["large2"]
    assert store.abort_incomplete() == 0, "nothing half-sent is left"
    assert [path.name for path in tmp_path.rglob(".lmft-part-*")] == []


def test_patterns_name_objects_level_by_level(store: Store) -> None:
    for key in ("d/a.jsonl", "d/b.jsonl", "d/c.txt", "d/x/e.jsonl", "d/x/y/f.jsonl", "d/q?.jsonl", "d/[ab].jsonl"):
        store.put_bytes(key, b"{}")

    def found(pattern: str) -> list[str]:
        return [item.key for item in expand(store, pattern)]

    assert found("d/[ab].jsonl") == ["d/[ab].jsonl"], "a bracket is a letter, as in file://"
    assert found("d/[ab].*") == ["d/[ab].jsonl"]
    assert found("d/?.jsonl") == ["d/a.jsonl", "d/b.jsonl"]
    assert found("d/*.jsonl") == ["d/[ab].jsonl", "d/a.jsonl", "d/b.jsonl", "d/q?.jsonl"]
    assert found("d/*/e.jsonl") == ["d/x/e.jsonl"]
    assert found("d/**/?.jsonl") == ["d/a.jsonl", "d/b.jsonl", "d/x/e.jsonl", "d/x/y/f.jsonl"]
    assert found("d/q?.jsonl") == ["d/q?.jsonl"]
    assert found("d/c.txt") == ["d/c.txt"]


def test_a_pattern_without_a_match_says_what_is_there(s3: S3Server, tmp_path: Path) -> None:
    secret = s3.secret(tmp_path / "secret")
    field = "spec.dataset.files[0]"
    store = open_store(f"s3://{BUCKET}/{tmp_path.name}", secret, purpose="dataset", field=field)
    for number in range(7):
        store.put_bytes(f"d/{number}.csv", b"")

    with pytest.raises(ObjectMissingError) as caught:
        expand(store, "d/*.jsonl")

    assert caught.value.reason is Reason.DATASET_NOT_FOUND
    assert str(caught.value).startswith("spec.dataset.files[0]: no object matches s3://models/")
    assert "d/0.csv, d/1.csv, d/2.csv, d/3.csv, d/4.csv, and 2 more" in str(caught.value)


def test_a_folder_comes_whole_and_a_local_one_is_used_where_it_lies(store: Store, tmp_path: Path) -> None:
    for key in ("m/config.json", "m/sub/weights"):
        store.put_bytes(key, key.encode())

    folder = fetch_folder(store, "m", tmp_path / "fetched")

    assert (folder / "config.json").read_bytes() == b"m/config.json"
    assert (folder / "sub/weights").read_bytes() == b"m/sub/weights"
    assert (folder == tmp_path / "fetched") == store.uri.startswith("s3:")
    with pytest.raises(ObjectMissingError, match="there is nothing below"):
        fetch_folder(store, "absent", tmp_path / "other")


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("models/team", "must begin with s3:// or file://"),
        ("gs://models", "must begin with s3:// or file://"),
        ("file://runs", "must be an absolute path"),
        ("s3:///folder", "has no bucket"),
    ],
)
def test_an_address_of_another_kind_is_invalid(uri: str, said: str) -> None:
    with pytest.raises(InvalidError, match=said) as caught:
        open_store(uri)
    assert caught.value.problems[0].startswith("spec.output.uri: ")


def test_a_full_disk_says_so_and_keeps_what_was_there(tmp_path: Path) -> None:
    source = written(tmp_path / "source", bytes(8 * 1024 * 1024))

    with small_disk(tmp_path / "small") as disk:
        store = open_store((disk / "out").as_uri())
        store.put_bytes("kept", b"kept")
        with pytest.raises(JobError) as caught:
            store.put_file("large", source)
        left = [path.name for path in disk.rglob("*") if path.is_file()]

    assert (caught.value.exit_code, caught.value.reason) == (ExitCode.UNAVAILABLE, Reason.STORAGE_UNAVAILABLE)
    assert str(caught.value).startswith("spec.output.uri: ")
    assert "what was complete before is kept" in str(caught.value)
    assert left == ["kept"]


def test_a_download_onto_a_full_disk_says_which_disk(store: Store, tmp_path: Path) -> None:
    store.put_file("large", written(tmp_path / "source", bytes(8 * 1024 * 1024)))

    with small_disk(tmp_path / "small") as disk:
        with pytest.raises(JobError, match=r"this machine's disk \(.*copy\): (no space|file size)") as caught:
            store.get_file("large", disk / "copy")
        left = list(disk.iterdir())

    assert caught.value.exit_code == ExitCode.UNAVAILABLE
    assert left == []


def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "file", b"in the way")
    store = open_store((tmp_path / "file" / "out").as_uri())

    with pytest.raises(RefusedError, match="Check the path and who may write there") as caught:
        store.probe_write()

    assert caught.value.reason is Reason.STORAGE_ACCESS_DENIED
