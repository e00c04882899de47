"""Checkpoints on their way to storage beside training: one at a time, in bounded time, and no failure is lost."""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.checkpoint_helpers import MODEL, PART, content, folder, quick_store, steps
from support.faults import Fault, Proxy, every, proxy, small_disk
from support.s3server import BUCKET, S3Server

from lmft_api.reasons import ExitCode, Reason
from lmft_job.checkpoints import CheckpointUploader, newest_verified
from lmft_job.errors import InterruptedRunError, RefusedError, UnavailableError
from lmft_job.storage import Check, Store, open_store
from lmft_job.storage.s3 import S3Settings, S3Store
from lmft_job.storage.store import PURPOSES

pytestmark = pytest.mark.usefixtures("short_waits")


def test_an_uploader_publishes_beside_training_and_prunes(store: Store, tmp_path: Path) -> None:
    told: list[int] = []

    with CheckpointUploader(store, 1, 2, print, lambda made: told.append(made.step)) as uploader:
        for step in (20, 40, 60):
            source = folder(tmp_path, step)
            uploader.submit(source, step)
            shutil.rmtree(source)  # as the Trainer does with its own old ones

    assert told == [20, 40, 60]
    assert steps(store) == [(1, 60), (1, 40)]
    assert uploader.newest is not None
    assert uploader.newest.step == 60
    assert [path.name for path in tmp_path.glob(".upload-*")] == [], "no snapshot is left on this disk"


class Gate:
    """Lets a test hold uploads of a file store where they are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from lmft_job.storage.local import FileStore

        self.open, self.reached = threading.Event(), threading.Event()
        original = FileStore.put_if_absent

        def put_if_absent(store: FileStore, key: str, data: bytes) -> bool:
            self.reached.set()
            assert self.open.wait(30)
            return original(store, key, data)

        monkeypatch.setattr(FileStore, "put_if_absent", put_if_absent)


def test_one_upload_is_in_flight_and_the_next_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, store = Gate(monkeypatch), open_store((tmp_path / "out").as_uri())
    with CheckpointUploader(store, 1, 5, print) as uploader:
        begin = time.monotonic()
        uploader.submit(folder(tmp_path, 20), 20)
        assert time.monotonic() - begin < 2, "training goes on at once"
        assert gate.reached.wait(10)
        second = threading.Thread(target=uploader.submit, args=(folder(tmp_path, 40), 40))
        second.start()
        second.join(0.3)
        waited = second.is_alive()
        gate.open.set()
        second.join(10)

    assert waited
    assert steps(store) == [(1, 40), (1, 20)]


def test_whoever_waits_for_an_upload_hears_that_it_moves_and_nothing_once_it_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a storage that takes the first file chunk by chunk until five were heard of, and then no more
    from lmft_job.storage.local import FileStore

    heard, stuck, gone_on = threading.Semaphore(0), threading.Event(), threading.Event()
    original, moves = FileStore.put_file, 0

    def put_file(store: FileStore, key: str, path: Path, check: Check | None = None) -> str:
        nonlocal moves
        while check and not stuck.is_set():
            moves += 1
            check()
            heard.acquire(timeout=0.01)
            if beats >= 5:
                stuck.set()
        assert gone_on.wait(30)
        return original(store, key, path)

    monkeypatch.setattr(FileStore, "put_file", put_file)
    beats = 0

    def moved() -> None:
        nonlocal beats
        beats += 1
        heard.release()

    store = open_store((tmp_path / "out").as_uri())
    with CheckpointUploader(store, 1, 5, print, moved=moved) as uploader:
        uploader.submit(folder(tmp_path, 20), 20)
        waiting = threading.Thread(target=uploader.wait)
        waiting.start()
        assert stuck.wait(30)
        # then chunks were heard of, and the silence since is one, but for a chunk that came between two looks
        so_far = beats
        waiting.join(1)
        assert so_far <= beats <= so_far + 1 <= moves + 1
        gone_on.set()
        waiting.join(30)
    assert steps(store) == [(1, 20)]


def test_an_upload_that_outlasts_the_grace_period_is_given_up_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, store = Gate(monkeypatch), open_store((tmp_path / "out").as_uri())
    uploader = CheckpointUploader(store, 1, 5, print)
    uploader.submit(folder(tmp_path, 20), 20)
    threading.Timer(0.2, uploader.limit, [0.3]).start()  # as a signal handler would, while we wait
    begin = time.monotonic()

    with pytest.raises(InterruptedRunError) as caught:
        uploader.wait()

    gate.open.set()
    assert time.monotonic() - begin < 5
    assert caught.value.exit_code == ExitCode.INTERRUPTED
    assert str(caught.value) == (
        "the upload of checkpoint 20 did not end within the grace period; this attempt has stored none"
    )


@pytest.fixture
def trouble(s3: S3Server) -> Iterator[Proxy]:
    with proxy(s3.endpoint) as between:
        yield between


def test_a_failed_upload_is_told_at_the_next_look_with_what_is_kept(
    s3: S3Server, trouble: Proxy, tmp_path: Path
) -> None:
    store = quick_store(trouble.endpoint, s3, tmp_path)
    uploader = CheckpointUploader(store, 1, 2, print)
    uploader.submit(folder(tmp_path, 20), 20)
    uploader.wait()
    trouble.rule = every(1, Fault.UNAVAILABLE)
    uploader.submit(folder(tmp_path, 40), 40)

    with pytest.raises(UnavailableError) as caught:
        uploader.submit(folder(tmp_path, 60), 60)

    assert (caught.value.exit_code, caught.value.reason) == (ExitCode.UNAVAILABLE, Reason.STORAGE_UNAVAILABLE)
    assert str(caught.value).startswith("checkpoint of step 40 was not stored (kept: the checkpoint of step 20). ")
    assert "kept answering 503" in str(caught.value)
    trouble.rule = lambda request: None
    assert steps(store) == [(1, 20)]


def test_a_failed_upload_is_told_when_the_block_ends_and_never_hides_its_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"in the way")
    store = open_store((tmp_path / "file" / "out").as_uri())
    said: list[str] = []

    with pytest.raises(RefusedError), CheckpointUploader(store, 1, 2, said.append) as uploader:
        uploader.submit(folder(tmp_path, 20), 20)

    def train() -> None:
        with CheckpointUploader(store, 1, 2, said.append) as uploader:
            uploader.submit(folder(tmp_path, 40), 40)
            raise ValueError("training broke")

    with pytest.raises(ValueError, match="training broke") as caught:
        train()

    assert "The checkpoint upload failed too: spec.output.uri: " in caught.value.__notes__[0]
    assert len(said) == 1


def test_a_full_disk_keeps_the_checkpoints_before(tmp_path: Path) -> None:
    large = folder(tmp_path, 40)
    (large / MODEL).write_bytes(bytes(8 * 1024 * 1024))
    with small_disk(tmp_path / "small") as disk:
        store = open_store((disk / "out").as_uri())
        uploader = CheckpointUploader(store, 1, 2, print)
        uploader.submit(folder(tmp_path, 20), 20)
        uploader.submit(large, 40)
        with pytest.raises(
            UnavailableError, match=r"step 40 was not stored \(kept: the checkpoint of step 20\)"
        ) as caught:
            uploader.wait()
        found = newest_verified(store, tmp_path / "resume", print)

    assert caught.value.exit_code == ExitCode.UNAVAILABLE
    assert found is not None
    assert found.step == 20


def test_every_tenth_request_failing_and_connections_cut_change_nothing(
    s3: S3Server, trouble: Proxy, tmp_path: Path
) -> None:
    faults = [every(10, Fault.UNAVAILABLE), every(7, Fault.CUT_ANSWER), every(9, Fault.LOST_ANSWER)]
    trouble.rule = lambda request: next(filter(None, [rule(request) for rule in faults]), None)
    settings = S3Settings(part_bytes=PART, attempts=10)
    secret = s3.secret(tmp_path / "secret", None, trouble.endpoint)
    store = S3Store.connect(BUCKET, tmp_path.name, PURPOSES["output"], secret, settings)
    wanted = folder(tmp_path / "wanted", 80)

    with CheckpointUploader(store, 1, 2, print) as uploader:
        for step in (20, 40, 60, 80):
            uploader.submit(folder(tmp_path, step), step)
    found = newest_verified(store, tmp_path / "resume", print)

    assert len(trouble.made) > 5
    assert found == uploader.newest
    assert content(tmp_path / "resume") == content(wanted)
    assert steps(store) == [(1, 80), (1, 60)]
