"""The checkpoint protocol: whole or not there, verified before it is believed, fenced, pruned, never silent."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.checkpoint_helpers import MODEL, content, files_of, folder, made_older, publish_steps, quick_store, steps
from support.faults import Fault, Proxy, proxy
from support.s3server import BUCKET, S3Server

from lmft_job import checkpoints
from lmft_job.checkpoints import Checkpoint, newest_verified, prune, publish
from lmft_job.errors import InterruptedRunError, RefusedError, UnavailableError
from lmft_job.storage import MANIFEST, Store, fetch_verified, open_store, put_folder


def test_the_newest_checkpoint_comes_back_byte_for_byte(store: Store, tmp_path: Path) -> None:
    wanted = content(folder(tmp_path / "wanted", 40))
    publish_steps(store, tmp_path, 20, 40)
    said: list[str] = []

    found = newest_verified(store, tmp_path / "resume", said.append)

    assert found == Checkpoint(
        1, 40, "checkpoints/attempt-0001/step-00000040", store.url("checkpoints/attempt-0001/step-00000040")
    )
    assert content(tmp_path / "resume") == wanted
    assert said == []


def test_without_a_checkpoint_there_is_none_and_no_folder(store: Store, tmp_path: Path) -> None:
    assert newest_verified(store, tmp_path / "resume", print) is None
    assert not (tmp_path / "resume").exists()


def test_the_manifest_names_size_and_sha256_of_every_file(store: Store, tmp_path: Path) -> None:
    [made] = publish_steps(store, tmp_path, 20)

    manifest = json.loads(store.get_bytes(f"{made.prefix}/{MANIFEST}") or b"")

    assert manifest["format"] == 2
    assert manifest["labels"] == {"attempt": 1, "step": 20}
    assert sorted(manifest["files"]) == ["extra/rng_state.pth", "model.safetensors", "trainer_state.json"]
    assert manifest["files"]["model.safetensors"]["size"] == 3000
    assert len(manifest["files"]["model.safetensors"]["sha256"]) == 64


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("truncate", "model.safetensors has 100 bytes, its manifest says 3,000"),
        ("alter", "model.safetensors was altered: its SHA-256 does not match the manifest"),
        ("remove", "model.safetensors is missing"),
        ("garble the manifest", "MANIFEST.json is damaged"),
        ("swap the manifest", "MANIFEST.json belongs to another checkpoint"),
        ("another format", "MANIFEST.json is damaged (Value error, format is not a number from 1)"),
        ("name a file outside", "MANIFEST.json names '../../../escaped', which lies outside the folder"),
        ("name a folder outside", "MANIFEST.json is damaged"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_and_the_one_before_is_used(
    store: Store, tmp_path: Path, damage: str, said: str
) -> None:
    before, newest = publish_steps(store, tmp_path, 20, 40)
    weights, manifest = f"{files_of(store, newest)}/model.safetensors", f"{newest.prefix}/{MANIFEST}"
    data, body = store.get_bytes(weights) or b"", json.loads(store.get_bytes(manifest) or b"")
    match damage:
        case "truncate":
            store.put_bytes(weights, data[:100])
        case "alter":
            store.put_bytes(weights, data[:-1] + b"!")
        case "remove":
            store.delete([weights])
        case "garble the manifest":
            store.put_bytes(manifest, b'{"format": 1, "files": {"model.saf')
        case "swap the manifest":
            theirs = files_of(store, before)
            store.put_bytes(manifest, store.get_bytes(f"{before.prefix}/{MANIFEST}") or b"")
            for name in ("model.safetensors", "trainer_state.json", "extra/rng_state.pth"):
                target = theirs.replace(before.prefix, newest.prefix)
                store.put_bytes(f"{target}/{name}", store.get_bytes(f"{theirs}/{name}") or b"")
        case "another format":
            store.put_bytes(manifest, json.dumps({**body, "format": 0}).encode())
        case "name a folder outside":
            store.put_bytes(manifest, json.dumps({**body, "folder": ".."}).encode())
        case _:
            files = {**body["files"], "../../../escaped": body["files"]["model.safetensors"]}
            store.put_bytes(manifest, json.dumps({**body, "files": files}).encode())
    lines: list[str] = []

    found = newest_verified(store, tmp_path / "resume", lines.append)

    assert found == before
    assert json.loads((tmp_path / "resume" / "trainer_state.json").read_text()) == {"global_step": 20}
    [line] = lines
    assert line.startswith(f"checkpoint of step 40 (attempt 1) skipped: {said}")
    assert line.endswith("; trying step 20 (attempt 1) instead")


def test_when_all_are_damaged_it_says_so_and_starts_afresh(store: Store, tmp_path: Path) -> None:
    for made in publish_steps(store, tmp_path, 20, 40):
        store.delete([f"{files_of(store, made)}/trainer_state.json"])
    lines: list[str] = []

    assert newest_verified(store, tmp_path / "resume", lines.append) is None
    assert len(lines) == 2
    assert lines[1].endswith("skipped: trainer_state.json is missing; there is none before it")
    assert not (tmp_path / "resume").exists()


def test_what_has_no_manifest_does_not_exist(store: Store, tmp_path: Path) -> None:
    publish_steps(store, tmp_path, 20)
    store.put_file("checkpoints/attempt-0001/step-00000040/model.safetensors", folder(tmp_path, 40) / MODEL)

    assert steps(store) == [(1, 20)]


def test_the_most_steps_go_first_then_the_later_manifest_whatever_the_attempts_number(tmp_path: Path) -> None:
    store = open_store((tmp_path / "out").as_uri())
    publish_steps(store, tmp_path, 20, 60)
    publish_steps(store, tmp_path, 40, attempt=2)
    assert steps(store) == [(1, 60), (2, 40), (1, 20)]

    # given two pods with one number, of which that with the lower UID was the later
    for pod, age in (("bbbbbbbb", 100), ("aaaaaaaa", 50)):
        found = publish(store, folder(tmp_path / pod, 60), 1, 60, pod=pod)
        made_older(tmp_path / "out" / found.prefix / MANIFEST, age)
    made_older(tmp_path / "out/checkpoints/attempt-0001/step-00000060" / MANIFEST, 75)

    newest = [found.prefix.split("/")[1] for found in checkpoints.complete(store)]
    assert newest[:3] == ["attempt-0001-aaaaaaaa", "attempt-0001", "attempt-0001-bbbbbbbb"]


def test_pods_with_one_attempt_number_harm_nothing_of_each_other(store: Store, tmp_path: Path) -> None:
    # given a pod of an attempt whose number comes again, after the cluster's database was restored
    first = publish(store, folder(tmp_path / "one", 20), 3, 20, pod="11111111-aaaa")
    again = folder(tmp_path / "two", 20)
    (again / MODEL).write_bytes(b"other weights")

    second = publish(store, again, 3, 20, pod="22222222-bbbb")

    assert first.prefix == "checkpoints/attempt-0003-11111111/step-00000020"
    assert second.prefix == "checkpoints/attempt-0003-22222222/step-00000020"
    for found, wanted in ((first, folder(tmp_path / "three", 20)), (second, again)):
        assert fetch_verified(store, found.prefix, tmp_path / "copy")
        assert content(tmp_path / "copy") == content(wanted)


def test_a_checkpoint_of_an_earlier_version_is_resumed_from_and_pruned(store: Store, tmp_path: Path) -> None:
    # given the layout of format 1: no pod in the folder's name, the files beside the manifest
    for step in (20, 40):
        source, prefix = folder(tmp_path / "old", step), f"checkpoints/attempt-0001/step-{step:08d}"
        files = {name: entry.model_dump() for name, entry in put_folder(store, prefix, source).items()}
        body = {"format": 1, "labels": {"attempt": 1, "step": step}, "files": files}
        store.put_bytes(f"{prefix}/{MANIFEST}", json.dumps(body).encode())

    found = newest_verified(store, tmp_path / "resume", print)

    assert found is not None
    assert (found.attempt, found.step) == (1, 40)
    assert content(tmp_path / "resume") == content(tmp_path / "old" / "checkpoint-40")
    publish(store, folder(tmp_path / "new", 60), 2, 60, pod="11111111")
    assert prune(store, 1, attempt=2) == 2
    assert {item.key.split("/")[1] for item in store.list("checkpoints/")} == {"attempt-0002-11111111"}


def test_pruning_keeps_the_newest_and_sweeps_what_earlier_attempts_left(store: Store, tmp_path: Path) -> None:
    publish_steps(store, tmp_path, 20, 40)
    store.put_bytes("checkpoints/attempt-0001/step-00000060/model.safetensors", b"half-sent")
    publish_steps(store, tmp_path, 60, 80, attempt=2)
    store.put_bytes("checkpoints/attempt-0002/step-00000100/model.safetensors", b"on its way")

    assert prune(store, 2, attempt=2) == 2

    assert steps(store) == [(2, 80), (2, 60)]
    assert [item.key for item in store.list("checkpoints/attempt-0001/")] == []
    assert store.list("checkpoints/attempt-0002/step-00000100/"), "our own unfinished upload is left alone"


def test_a_checkpoint_found_damaged_counts_for_none_of_those_kept(store: Store, tmp_path: Path) -> None:
    # given an attempt that passed over the newest one, and has stored one of its own
    good, damaged = publish_steps(store, tmp_path, 20, 40)
    store.put_bytes(f"{files_of(store, damaged)}/{MODEL}", b"4" * 3000)
    passed_over: set[str] = set()
    assert newest_verified(store, tmp_path / "resume", print, passed_over=passed_over) == good
    publish_steps(store, tmp_path / "own", 30, attempt=2)

    prune(store, 2, attempt=2, passed_over=passed_over)

    assert steps(store) == [(2, 30), (1, 20)]


def test_what_no_manifest_names_is_removed_once_it_is_a_day_old(tmp_path: Path) -> None:
    # given half-sent checkpoints of our own number, of a later one, and the files of a writer that came too late
    store = open_store((tmp_path / "out").as_uri())
    [made] = publish_steps(store, tmp_path, 20)
    left = {
        "checkpoints/attempt-0001/step-00000040/abc/model.safetensors": "old",
        "checkpoints/attempt-0002-11111111/step-00000040/abc/model.safetensors": "old",
        "checkpoints/attempt-0002-22222222/step-00000040/abc/model.safetensors": "new",
        f"{made.prefix}/abc/model.safetensors": "old",
        f"{made.prefix}/abd/model.safetensors": "new",
    }
    for key, age in left.items():
        store.put_bytes(key, b"half-sent")
        made_older(tmp_path / "out" / key, 90_000 if age == "old" else 80_000)
    before = content(tmp_path / "out")

    prune(store, 1, attempt=1)

    gone = {key for key, age in left.items() if age == "old"}
    assert content(tmp_path / "out").keys() == before.keys() - gone
    assert newest_verified(store, tmp_path / "resume", print) == made


def test_the_newest_of_our_own_stays_though_a_pod_thought_dead_went_further(store: Store, tmp_path: Path) -> None:
    publish_steps(store, tmp_path, 60)
    publish_steps(store, tmp_path, 20, 40, attempt=2)

    prune(store, 1, attempt=2)

    assert steps(store) == [(1, 60), (2, 40)]


def test_pruning_takes_the_manifest_first(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_steps(store, tmp_path, 20, 40)
    removed: list[str] = []
    original = type(store).delete

    def noted(self: Store, keys: Iterator[str]) -> None:
        for key in keys:
            removed.append(key)
            original(self, [key])

    monkeypatch.setattr(type(store), "delete", noted)
    prune(store, 1, attempt=1)

    assert removed[0] == "checkpoints/attempt-0001/step-00000020/MANIFEST.json"
    assert len(removed) == 4


def test_an_attempt_thought_dead_cannot_touch_its_successors_checkpoints(store: Store, tmp_path: Path) -> None:
    publish_steps(store, tmp_path, 20)
    [successor] = publish_steps(store, tmp_path, 40, attempt=2)

    publish_steps(store, tmp_path, 60)
    prune(store, 1, attempt=1)

    assert steps(store) == [(1, 60), (2, 40)]
    assert successor in checkpoints.complete(store)


def test_two_processes_that_are_the_same_attempt_notice(store: Store, tmp_path: Path) -> None:
    publish_steps(store, tmp_path / "one", 20)
    other = folder(tmp_path / "two", 20)
    (other / MODEL).write_bytes(b"other weights")

    before = newest_verified(store, tmp_path / "before", print)

    with pytest.raises(RefusedError, match="another process runs as attempt 1"):
        publish(store, other, 1, 20)

    # and the second has harmed nothing of the first, whose checkpoint was complete, and left nothing
    said: list[str] = []
    assert newest_verified(store, tmp_path / "after", said.append) == before
    assert content(tmp_path / "after") == content(tmp_path / "before")
    assert (said, len(store.list("checkpoints/"))) == ([], 4)


def test_a_second_writer_harms_no_complete_checkpoint_even_when_it_is_killed_half_way(
    store: Store, tmp_path: Path
) -> None:
    [made] = publish_steps(store, tmp_path / "one", 20)
    other = folder(tmp_path / "two", 20)
    (other / MODEL).write_bytes(b"other weights")
    chunks = iter(range(2))

    def killed() -> None:
        if next(chunks, None) is None:
            raise InterruptedRunError("killed")

    with pytest.raises(InterruptedRunError):
        publish(store, other, 1, 20, killed)

    said: list[str] = []
    assert newest_verified(store, tmp_path / "after", said.append) == made
    assert (content(tmp_path / "after")[MODEL], said) == (b"20 " * 1000, [])


def test_our_own_checkpoint_that_was_found_damaged_is_replaced(store: Store, tmp_path: Path) -> None:
    [made] = publish_steps(store, tmp_path / "one", 20)
    store.delete([f"{files_of(store, made)}/{MODEL}"])
    passed_over: set[str] = set()
    assert newest_verified(store, tmp_path / "resume", print, passed_over=passed_over) is None

    publish(store, folder(tmp_path / "two", 20), 1, 20, passed_over=passed_over)

    assert newest_verified(store, tmp_path / "resume", print, passed_over=passed_over) == made


def test_publishing_the_same_checkpoint_again_is_fine(store: Store, tmp_path: Path) -> None:
    [made] = publish_steps(store, tmp_path / "one", 20)

    assert publish_steps(store, tmp_path / "two", 20) == [made]


@pytest.fixture
def trouble(s3: S3Server) -> Iterator[Proxy]:
    with proxy(s3.endpoint) as between:
        yield between


def test_a_failing_storage_is_no_reason_to_pass_a_checkpoint_over(s3: S3Server, trouble: Proxy, tmp_path: Path) -> None:
    store = quick_store(trouble.endpoint, s3, tmp_path)
    publish_steps(store, tmp_path, 20, 40)
    trouble.rule = lambda request: Fault.UNAVAILABLE if request.path.endswith(MODEL) else None
    said: list[str] = []

    with pytest.raises(UnavailableError):
        newest_verified(store, tmp_path / "resume", said.append)

    assert said == []


WRITER = """
import sys
from pathlib import Path
from lmft_job.checkpoints import publish
from lmft_job.storage import open_store
store = open_store(sys.argv[1])
print("ready", flush=True)
for step in range(1, 10_000):
    publish(store, Path(sys.argv[2]), 1, step)
    print(step, flush=True)
"""


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_a_writer_killed_at_any_moment_leaves_only_whole_checkpoints(
    request: pytest.FixtureRequest, s3: S3Server, tmp_path: Path, kind: str
) -> None:
    uri = (tmp_path / "out").as_uri() if kind == "file" else f"s3://{BUCKET}/{tmp_path.name}"
    source = folder(tmp_path, 1)
    (source / MODEL).write_bytes(os.urandom(300_000))
    command = [sys.executable, "-c", WRITER, uri, str(source)]
    environment = {**os.environ, **s3.environment(), "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as writer:
        assert writer.stdout
        told = 0
        for line in writer.stdout:
            told = int(line) if line != "ready\n" else 0
            if told == 3:
                break
        time.sleep(0.013)  # somewhere in the fourth or fifth
        writer.send_signal(signal.SIGKILL)
        told = max([told, *(int(line) for line in writer.stdout if line.strip().isdigit())])
    store = open_store((tmp_path / "out").as_uri()) if kind == "file" else quick_store(s3.endpoint, s3, tmp_path)
    said: list[str] = []

    found = newest_verified(store, tmp_path / "resume", said.append)

    assert found is not None
    assert told <= found.step <= told + 1, "what was told to be stored is there"
    assert content(tmp_path / "resume") == content(source)
    assert said == []
