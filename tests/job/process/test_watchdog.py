"""The watchdog: what it takes for a hang, and that whatever may rightly take long is heard of or left alone."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.forked import KILL, UID, attempt, complete, hold_until, toy_spec

from lmft_api.manifest.validation import parse_spec
from lmft_api.wire.run_file import RunFile
from lmft_job.attempt.context import RunContext
from lmft_job.attempt.current import CurrentAttempt
from lmft_job.attempt.journal import Begun
from lmft_job.attempt.uploads import Uploads
from lmft_job.hub import client
from lmft_job.observers.events import Observer
from lmft_job.process.watchdog import Watchdog
from lmft_job.storage import open_store
from lmft_job.storage.local import FileStore


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def watchdog(clock: Clock, hung: Callable[[str], None] = lambda words: None) -> Watchdog:
    return Watchdog(60, hung, 1800, clock)


def test_before_the_first_step_it_is_patient_and_then_as_the_manifest_says() -> None:
    clock = Clock()
    dog = watchdog(clock)
    clock.now = 1799
    assert dog.overdue() is None
    clock.now = 1800
    assert "nothing moved for 1800 seconds while checking and loading" in (dog.overdue() or "")
    dog.steps_begin("training, at step 1")
    clock.now += 59
    assert dog.overdue() is None
    clock.now += 1
    said = dog.overdue() or ""
    assert "while training, at step 1 (spec.training.watchdogSeconds is 60); the stacks" in said
    assert said.split(". ")[1].startswith("If a step rightly takes that long, raise watchdogSeconds")


def test_a_beat_starts_the_count_anew() -> None:
    clock = Clock()
    dog = watchdog(clock)
    for _ in range(3):
        clock.now += 1799
        dog.beat()
    assert dog.overdue() is None


def test_the_hubs_client_is_left_alone_however_long_it_takes() -> None:
    clock = Clock()
    said = []

    def download() -> str:
        clock.now += 36_000
        said.append(dog.overdue())
        return "done"

    with watchdog(clock) as dog:
        assert client.with_retries(download, paused=dog.paused) == "done"
        said.append(dog.overdue())
        assert said == [None, None]


@pytest.mark.parametrize("place", ["lmft_job.attempt.context.RunContext.run_store", "lmft_job.stages.inputs.prepare"])
def test_a_run_that_hangs_before_it_trains_is_ended(place: str, tmp_path: Path) -> None:
    def impatient(teller: Any) -> None:
        import lmft_job.attempt.context

        lmft_job.attempt.context.PATIENCE_BEFORE_STEPS_SECONDS = 3
        hold_until(place, tmp_path / "never")(teller)

    child = attempt(tmp_path, toy_spec(tmp_path, training={"watchdogSeconds": 3}), patch=impatient)
    assert child.wait() == 7
    assert child.said("while checking and loading")
    assert "in held" in child.log.read_text()


def tell_what_beats(teller: Any) -> None:
    """A patch: files on their way are told, with whether the watchdog hears of their chunks."""
    beats = [0]
    beat, put_file, get_file = Watchdog.beat, FileStore.put_file, FileStore.get_file

    def counted(self: Watchdog, where: str | None = None) -> None:
        beats[0] += 1
        beat(self, where)

    def told(way: str, key: str, check: Callable[[], None] | None) -> None:
        before = beats[0]
        if check:
            check()
        teller.tell(way, key.split("/")[0], "heard" if beats[0] > before else "not heard")

    def put(self: FileStore, key: str, path: Path, check: Any = None) -> str:
        told("put", key, check)
        return put_file(self, key, path, check)

    def get(self: FileStore, key: str, path: Path, check: Any = None) -> str:
        told("get", key, check)
        return get_file(self, key, path, check)

    Watchdog.beat, FileStore.put_file, FileStore.get_file = counted, put, get  # type: ignore[method-assign]


def test_every_transfer_that_a_run_waits_for_is_heard_of(tmp_path: Path) -> None:
    # given an attempt that prepares data and stores a checkpoint, and one on another machine that fetches both
    spec = toy_spec(tmp_path)
    first = attempt(tmp_path, spec, patch=tell_what_beats)
    first.until("checkpoint 5")
    first.signal(KILL)
    assert first.wait() == -KILL
    (tmp_path / "cache").rename(tmp_path / "gone")
    second = complete(tmp_path, spec, 2, patch=tell_what_beats)
    # then
    assert first.said("put datasets heard")
    assert {line for line in second.lines if line.startswith("get")} == {"get datasets heard", "get checkpoints heard"}
    assert {line for line in second.lines if line.startswith("put model")} == {"put model heard"}


def test_a_long_wait_for_an_upload_that_moves_is_no_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given an upload that takes five times the watchdog's patience, chunk by chunk
    clock, said = Clock(), []
    dog = Watchdog(60, said.append, clock=clock)
    file = RunFile(name="toy", namespace="team", uid=UID, attempt=1, spec=parse_spec(toy_spec(tmp_path)))
    context = RunContext(file, True, tmp_path, tmp_path, None, Observer(), lambda words: None, lambda: None)
    monkeypatch.setattr(context, "watchdog", dog)
    waiting = threading.Event()

    def put_file(self: FileStore, key: str, path: Path, check: Callable[[], None]) -> str:
        assert waiting.wait(30)
        for _ in range(6):
            clock.now += 59
            give_up = time.monotonic() + 30
            while dog._last < clock.now and time.monotonic() < give_up:
                check()
                time.sleep(0.01)
            said.append(dog.overdue())
        return "0" * 64

    monkeypatch.setattr(FileStore, "put_file", put_file)
    checkpoint = tmp_path / "checkpoint-5"
    checkpoint.mkdir()
    (checkpoint / "weights").write_text("weights")
    # when the training waits for it
    with Uploads(context, open_store(tmp_path.as_uri()), CurrentAttempt(Begun(1), {})) as uploads:
        uploads.submit(checkpoint, 5)
        waiting.set()
        uploads.wait()
    # then there is nothing to say
    assert said == [None] * 6
