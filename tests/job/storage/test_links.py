"""A file:// folder into which strangers have put links, fifos, devices and strange names: these spoil themselves."""

import os
from pathlib import Path

import pytest
from support.limits import within_seconds

from lmft_job.checkpoints import complete, prune
from lmft_job.errors import InvalidError, RefusedError
from lmft_job.storage import ObjectMissingError, Store, open_store

SECRET = b"not for you"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder beside the output that the run must neither read nor change."""
    folder = tmp_path / "elsewhere"
    (folder / "deeper").mkdir(parents=True)
    (folder / "key").write_bytes(SECRET)
    (folder / "deeper" / "key").write_bytes(SECRET)
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Store:
    return open_store((tmp_path / "out").as_uri())


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def names(store: Store, prefix: str = "") -> list[str]:
    return [item.key for item in store.list(prefix)]


@pytest.mark.parametrize("link", ["a", "a/b", "checkpoints", "checkpoints/attempt-0001", "file"])
def test_an_output_is_not_written_read_listed_or_removed_through_a_link(
    out: Store, elsewhere: Path, tmp_path: Path, link: str
) -> None:
    # given a link somewhere below the output, to a folder or a file beside it
    place = tmp_path / "out" / link
    place.parent.mkdir(parents=True)
    place.symlink_to(elsewhere / "key" if link == "file" else elsewhere)
    below = link if link == "file" else f"{link}/key"
    before = content(elsewhere)

    # then nothing goes through it
    assert names(out) == []
    assert out.abort_incomplete() == 0
    for action in (
        lambda: out.get_bytes(below),
        lambda: out.get_file(below, tmp_path / "copy"),
        *(() if link == "file" else (lambda: out.put_bytes(below, b"x"), lambda: out.put_if_absent(below, b"x"))),
        *(() if link == "file" else (lambda: out.delete([below]), lambda: out.child(link).put_bytes("key", b"x"))),
    ):
        with pytest.raises(
            RefusedError, match=f"'{Path(link).name}' is a link, and links below the folder of an output"
        ):
            action()
    assert content(elsewhere) == before
    assert not (tmp_path / "copy").exists()


def test_a_file_takes_the_place_of_a_link_and_a_link_is_removed_rather_than_what_it_leads_to(
    out: Store, elsewhere: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / name).symlink_to(elsewhere / "key")

    out.put_bytes("one", b"ours")
    out.delete(["two"])

    assert content(elsewhere)[str(elsewhere / "key")] == SECRET
    assert (names(out), out.get_bytes("one")) == (["one"], b"ours")


def test_a_hard_link_is_replaced_and_the_other_name_keeps_its_content(
    out: Store, elsewhere: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "linked").hardlink_to(elsewhere / "key")

    out.put_bytes("linked", b"ours")
    assert not out.put_if_absent("linked", b"another")
    out.delete(["linked"])

    assert (elsewhere / "key").read_bytes() == SECRET


def test_the_output_itself_may_be_a_link(elsewhere: Path, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(elsewhere)
    store = open_store((tmp_path / "out").as_uri())

    store.child("team").put_bytes("a", b"1")

    assert names(store) == ["deeper/key", "key", "team/a"]
    assert (elsewhere / "team" / "a").read_bytes() == b"1"


@pytest.mark.parametrize("purpose", ["output", "dataset", "model"])
def test_links_in_a_circle_do_not_hang_a_listing(tmp_path: Path, purpose: str) -> None:
    # given two links to their own folder, and a ladder of forty folders with two links each to the next
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "a").write_bytes(b"1")
    for name in ("x", "y"):
        (folder / name).symlink_to(".")
    for step in range(40):
        (tmp_path / f"ladder-{step}").mkdir()
        for name in ("x", "y"):
            (tmp_path / f"ladder-{step}" / name).symlink_to(tmp_path / f"ladder-{step + 1}")
    (folder / "ladder").symlink_to(tmp_path / "ladder-0")
    (folder / "itself").symlink_to("itself")

    with within_seconds(20):
        assert names(open_store(folder.as_uri(), purpose=purpose)) == ["a"]


@pytest.mark.parametrize("purpose", ["output", "dataset"])
def test_a_fifo_and_a_device_are_neither_waited_for_nor_read(tmp_path: Path, purpose: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "gone").symlink_to("nowhere")
    (folder / "a").write_bytes(b"1")
    store = open_store(folder.as_uri(), purpose=purpose)

    with within_seconds(20):
        assert names(store) == ["a"]
        for name in ("fifo", "zero"):
            with pytest.raises(RefusedError, match=r"is neither a file nor a folder|is a link"):
                store.get_bytes(name)
            with pytest.raises(RefusedError, match=r"is neither a file nor a folder|is a link"):
                store.get_file(name, tmp_path / "copy")
        if purpose == "dataset":
            assert store.get_bytes("gone") is None
            with pytest.raises(ObjectMissingError):
                store.get_file("gone", tmp_path / "copy")
        else:
            store.put_bytes("fifo", b"ours")
            assert store.get_bytes("fifo") == b"ours"


def test_names_with_line_ends_and_names_that_are_no_utf_8(
    tmp_path: Path, out: Store, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "out" / "d"
    folder.mkdir(parents=True)
    for name in (b"line\nend", b"back\\slash", b"\xff\xfe", b"plain"):
        (folder / os.fsdecode(name)).write_bytes(b"1")
    (folder / os.fsdecode(b"\xffolder")).mkdir()
    (folder / os.fsdecode(b"\xffolder") / "a").write_bytes(b"1")

    assert names(out) == ["d/back\\slash", "d/line\nend", "d/plain"]
    assert "2 names that are not UTF-8 are left out" in caplog.text
    out.delete(names(out))
    assert sorted(os.listdir(os.fsencode(folder))) == [b"\xffolder", b"\xff\xfe"]


def test_a_tree_too_deep_for_any_key_is_left_out(tmp_path: Path, out: Store) -> None:
    deepest = (tmp_path / "out").joinpath(*["d" * 200] * 10)
    deepest.mkdir(parents=True)
    (deepest / "b").write_bytes(b"1")
    out.put_bytes("a", b"1")

    assert names(out) == ["a"]


def test_data_may_lie_behind_links_but_not_behind_those_that_lead_to_the_pods_secrets(
    elsewhere: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "linked").symlink_to(elsewhere)
    (folder / "environ").symlink_to("/proc/self/environ")
    store = open_store(folder.as_uri(), purpose="dataset")

    assert store.get_bytes("linked/key") == SECRET
    assert "linked/deeper/key" in names(store)
    for action in (lambda: store.get_bytes("environ"), lambda: store.get_file("environ", tmp_path / "copy")):
        with pytest.raises(InvalidError, match="lies outside of what a manifest may read"):
            action()


def test_checkpoints_behind_links_are_not_there_and_pruning_leaves_them(
    out: Store, elsewhere: Path, tmp_path: Path
) -> None:
    (elsewhere / "MANIFEST.json").write_bytes(b'{"format": 2, "files": {}, "labels": {"attempt": 1, "step": 99}}')
    folder = tmp_path / "out" / "checkpoints" / "attempt-0001"
    folder.mkdir(parents=True)
    (folder / "step-00000099").symlink_to(elsewhere)
    before = content(elsewhere)

    assert complete(out) == []
    assert prune(out, 1, attempt=2) == 0
    assert content(elsewhere) == before
