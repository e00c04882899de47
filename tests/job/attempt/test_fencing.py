"""Attempts beside each other: one report, whichever was first, and no word of an attempt once a later one has begun."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.forked import UID, attempt, complete, hold_until, run_folder, toy_spec
from support.s3server import BUCKET, S3Server

from lmft_api.manifest.validation import parse_spec
from lmft_api.wire.run_file import RunFile
from lmft_job.attempt.context import RunContext
from lmft_job.attempt.current import CurrentAttempt
from lmft_job.attempt.journal import Begun, Fence, begin, begun, known_steps, place
from lmft_job.errors import InterruptedRunError
from lmft_job.observers.events import Observer
from lmft_job.stages.check import begin_attempt
from lmft_job.storage import Store, open_store


def report(home: Path) -> dict[str, Any]:
    return dict(json.loads((run_folder(home) / "report.json").read_text()))


def written(home: Path) -> dict[str, int]:
    """When each file that attempts share was written."""
    found = run_folder(home)
    shared = [*(found / "model").iterdir(), *found.glob("report.*"), found / "before.json"]
    return {path.name: path.stat().st_mtime_ns for path in shared}


@pytest.mark.parametrize("place", ["lmft_job.stages.publish.save_model", "lmft_job.stages.publish.publish_report"])
def test_an_attempt_thought_dead_leaves_model_and_report_to_its_successor(place: str, tmp_path: Path) -> None:
    # given an attempt that is held before it saves, and another that ends the run meanwhile
    spec = toy_spec(tmp_path)
    zombie = attempt(tmp_path, spec, patch=hold_until(place, tmp_path / "go"))
    zombie.until("held")
    complete(tmp_path, spec, 2)
    before = written(tmp_path)
    # when the first goes on
    (tmp_path / "go").touch()
    # then it ends as an interrupted one and has written nothing
    assert zombie.wait() == 75
    assert zombie.result["message"] == "attempt 2 of this run has begun; attempt 1 leaves model and report to it"
    assert written(tmp_path) == before
    assert report(tmp_path)["attempt"] == 2


def test_an_attempt_that_comes_to_its_end_after_another_answers_with_the_report_there(tmp_path: Path) -> None:
    spec = toy_spec(tmp_path)
    zombie = attempt(tmp_path, spec, patch=hold_until("lmft_job.stages.publish.answers_after", tmp_path / "go"))
    zombie.until("held")
    other = complete(tmp_path, spec, 2)
    before = written(tmp_path)
    (tmp_path / "go").touch()
    assert zombie.wait() == 0
    assert zombie.result["results"] == other.result["results"]
    assert zombie.result["counts"] == other.result["counts"]
    assert written(tmp_path) == before


def test_an_attempt_stops_as_soon_as_a_later_one_has_begun_though_it_has_not_ended(tmp_path: Path) -> None:
    spec = toy_spec(tmp_path)
    zombie = attempt(tmp_path, spec, patch=hold_until("lmft_job.stages.publish.save_model", tmp_path / "go"))
    zombie.until("held")
    # The second has begun when it looks for the model, long before it trains.
    successor = attempt(tmp_path, spec, 2, patch=hold_until("lmft_job.recipe.find_sources", tmp_path / "further"))
    successor.until("held")
    (tmp_path / "go").touch()
    assert zombie.wait() == 75
    assert not (run_folder(tmp_path) / "model").exists()
    (tmp_path / "further").touch()
    assert successor.wait() == 0
    assert report(tmp_path)["attempt"] == 2


def test_the_baseline_that_is_stored_first_is_the_one_of_all_attempts(tmp_path: Path) -> None:
    spec = toy_spec(tmp_path)
    slow = attempt(tmp_path, spec, patch=hold_until("lmft_job.training.loop.evaluate_held_out", tmp_path / "go"))
    slow.until("held")
    note = run_folder(tmp_path) / "before.json"
    note.write_text(json.dumps({"figures": {"loss": 9.5, "trainer_loss": 9.5}, "answers": ["first"]}))
    (tmp_path / "go").touch()
    assert slow.wait() == 0
    assert report(tmp_path)["results"]["baselineEvalLoss"] == 9.5
    assert report(tmp_path)["results"]["samples"][0]["before"] == "first"


def test_a_fence_asks_storage_now_and_then_and_is_never_late_when_it_must_not_be(tmp_path: Path) -> None:
    store, now = open_store(tmp_path.as_uri()), [0.0]
    begin(store, Begun(1))
    fence = Fence(store, Begun(1), pause=5.0, clock=lambda: now[0])
    fence.check()
    begin(store, Begun(2))
    fence.check()  # an answer holds for a while
    with pytest.raises(InterruptedRunError, match="attempt 2 of this run has begun"):
        fence.require()
    now[0] += 5.0
    with pytest.raises(InterruptedRunError, match="attempt 2 of this run has begun"):
        fence.check()
    Fence(store, Begun(2)).require()


def pod_begins(store: Store, number: int, pod: str) -> Begun:
    ours = place(store, number, pod, begun(store))
    begin(store, ours)
    return ours


def stands(store: Store, ours: Begun) -> bool:
    """Whether a pod may still write what all attempts share."""
    try:
        Fence(store, ours).require()
    except InterruptedRunError:
        return False
    return True


@pytest.mark.parametrize("uids", [("aaaaaaaa", "bbbbbbbb", "cccccccc"), ("cccccccc", "aaaaaaaa", "bbbbbbbb")])
def test_of_pods_with_one_attempt_number_the_one_that_began_last_goes_on(
    store: Store, uids: tuple[str, str, str]
) -> None:
    first, second, third = (pod_begins(store, 5, f"{uid}-1234") for uid in uids)

    assert [stands(store, pod) for pod in (first, second, third)] == [False, False, True]
    # nor does the first stand again when its process is replaced, after a shortage of memory
    assert not stands(store, place(store, 5, uids[0], begun(store)))
    assert stands(store, place(store, 5, uids[2], begun(store)))


def test_of_two_pods_that_began_at_the_same_moment_one_goes_on(store: Store) -> None:
    before = begun(store)
    one, other = (place(store, 5, pod, before) for pod in ("aaaaaaaa", "bbbbbbbb"))
    begin(store, one)
    begin(store, other)

    assert [stands(store, one), stands(store, other)] == [False, True]


def test_a_note_of_an_earlier_version_holds_no_pod_of_the_same_number_up(store: Store) -> None:
    store.put_bytes("attempts/attempt-0005.json", json.dumps({"attempt": 5, "step": 40}).encode())

    assert stands(store, pod_begins(store, 5, "aaaaaaaa"))
    assert known_steps(store, begun(store)) == {5: 40}


def test_to_begin_again_forgets_no_step(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    store.put_bytes("attempts/attempt-0001.json", json.dumps({"attempt": 1, "step": 7}).encode())
    begin(store, Begun(1))
    begin(store, Begun(2, "1a2b3c4d"))
    assert known_steps(store, begun(store)) == {1: 7, 2: 0}


def test_an_attempt_sweeps_what_killed_writers_left_half_sent_and_nothing_of_a_successor(
    s3: S3Server, s3_store: Store, tmp_path: Path
) -> None:
    # given half-sent uploads of attempts 1 and 3, which have begun
    store = s3_store.child(tmp_path.name)
    for number in (1, 3):
        begin(store, Begun(number))
        key = f"{tmp_path.name}/checkpoints/attempt-{number:04d}/step-00000020/model.safetensors"
        s3.client().create_multipart_upload(Bucket=BUCKET, Key=key)

    contexts: list[RunContext] = []

    def attempt_begins(number: int) -> CurrentAttempt:
        file = RunFile(name="toy", namespace="team", uid=UID, attempt=number, spec=parse_spec(toy_spec(tmp_path)))
        context = RunContext(file, True, tmp_path, tmp_path, None, Observer(), lambda words: None, lambda: None)
        contexts.append(context)
        return begin_attempt(context, store)

    # when one between them begins late, then it ends at once and touches nothing
    with pytest.raises(InterruptedRunError, match="attempt 3 of this run has begun"):
        attempt_begins(2)
    assert contexts[-1].progress.highest_attempt == 3, "the operator continues above it"
    assert len(s3.client().list_multipart_uploads(Bucket=BUCKET, Prefix=tmp_path.name)["Uploads"]) == 2
    # when one after them begins, then what they had sent is gone
    assert attempt_begins(4) == CurrentAttempt(Begun(4), {1: 0, 3: 0})
    assert store.abort_incomplete("checkpoints/") == 0
    assert known_steps(store, begun(store)) == {1: 0, 3: 0, 4: 0}
