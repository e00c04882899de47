"""When the disk of file:// storage answers with an error: it is told, and never taken for nothing."""

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest

from lmft_job.errors import JobError, RefusedError, UnavailableError
from lmft_job.storage import open_store


def unreadable(folder: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a folder answer with an error."""
    scandir = os.scandir

    def answer(descriptor: int) -> Any:
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            raise OSError(number, os.strerror(number), str(folder))
        return scandir(descriptor)

    monkeypatch.setattr(os, "scandir", answer)


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EIO, UnavailableError), (errno.ESTALE, UnavailableError), (errno.EACCES, RefusedError)]
)
@pytest.mark.parametrize("folder", ["checkpoints", "checkpoints/attempt-0001"])
def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, number: int, kind: type[JobError]
) -> None:
    store = open_store(tmp_path.as_uri())
    store.put_bytes("checkpoints/attempt-0001/a", b"1")
    unreadable(tmp_path / folder, number, monkeypatch)

    for action in (lambda: store.list("checkpoints/"), lambda: store.abort_incomplete()):
        with pytest.raises(kind, match=re.escape(f"spec.output.uri: {tmp_path}")):
            action()


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR, errno.ELOOP])
def test_a_folder_that_went_while_we_looked_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store = open_store(tmp_path.as_uri())
    store.put_bytes("checkpoints/attempt-0001/a", b"1")
    unreadable(tmp_path / "checkpoints/attempt-0001", number, monkeypatch)

    assert store.list("checkpoints/") == []


def test_what_a_killed_writer_left_and_cannot_be_removed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path.as_uri())
    (tmp_path / ".lmft-part-123").write_bytes(b"half")

    def unlink(path: str, *, dir_fd: int) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "unlink", unlink)

    said = f"spec.output.uri: {tmp_path}/.lmft-part-123: Permission denied. Check the path and who may write there"
    with pytest.raises(RefusedError, match=re.escape(said)):
        store.abort_incomplete()


def test_a_file_to_send_that_is_gone_is_told(tmp_path: Path) -> None:
    store = open_store((tmp_path / "out").as_uri())

    said = f"this machine's disk ({tmp_path / 'gone'}): No such file or directory."
    with pytest.raises(UnavailableError, match=re.escape(said)):
        store.put_file("a", tmp_path / "gone")
