"""A run that is killed, however often and whenever, ends as if nothing had happened."""

import random
from pathlib import Path
from typing import Any

import pytest
from support.complete_folders import files_of
from support.faults import Fault, Request, proxy
from support.forked import KILL, UID, attempt, complete, outcome, run_folder, slow_uploads, toy_spec
from support.s3server import BUCKET, S3Server

# What is waited for, and how often at most it may come before the kill.
MOMENTS = [
    ("step", 6),
    ("step", 6),
    ("put checkpoints", 20),
    ("put checkpoints", 20),
    ("evaluation", 1),
    ("checkpoint", 1),
]


@pytest.mark.parametrize(("task", "kills"), [("CausalLM", 10), ("MaskedLM", 10), ("SequenceClassification", 4)])
def test_a_run_killed_at_random_moments_ends_bit_equal(task: str, kills: int, tmp_path: Path) -> None:
    spec = toy_spec(tmp_path, task, training={"epochs": 4}, checkpoint={"everySteps": 3})
    complete(tmp_path, spec, name="calm")
    chance = random.Random(task)
    killed_in = []
    while len(killed_in) < kills:
        child = attempt(tmp_path, spec, len(killed_in) + 1, patch=slow_uploads(0.003))
        moment, most = chance.choice(MOMENTS)
        patience = chance.randint(1, most)
        for line in child.events():
            patience -= line.startswith(moment)
            if not patience:
                child.signal(KILL)
                killed_in.append(moment)
                break
        assert child.wait() == -KILL, "it ended before its moment came"
    last = complete(tmp_path, spec, kills + 1)
    assert {"step", "put checkpoints"} <= set(killed_in), "the seed of these chances meets both"
    assert last.said("resumed from step")
    assert outcome(tmp_path) == outcome(tmp_path, "calm")


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
def test_a_damaged_checkpoint_is_passed_over_and_the_run_ends_bit_equal(
    damage: str, tmp_path: Path, calm: dict[str, Any]
) -> None:
    # given a run that was killed after its second checkpoint, a file of which was damaged
    spec = toy_spec(tmp_path)
    child = attempt(tmp_path, spec)
    child.until("checkpoint 10")
    child.signal(KILL)
    assert child.wait() == -KILL
    newest = max((run_folder(tmp_path) / "checkpoints").glob("*/*/MANIFEST.json")).parent
    file = files_of(newest) / "optimizer.pt"
    if damage == "missing":
        file.unlink()
    else:
        body = bytearray(file.read_bytes())
        body[1000] ^= 1
        file.write_bytes(body if damage == "altered" else body[:1000])
    # when it goes on
    last = complete(tmp_path, spec, 2)
    # then it says so, takes the one before, and ends as if nothing had happened
    step = int(newest.name.removeprefix("step-"))
    assert last.said(f"checkpoint of step {step} (attempt 1) skipped: optimizer.pt")
    assert last.said(f"trying step {step - 5} (attempt 1) instead")
    assert last.result["counts"]["resumedFromStep"] == step - 5
    assert outcome(tmp_path) == calm


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run that nothing disturbed ends with."""
    home = tmp_path_factory.mktemp("calm")
    complete(home, toy_spec(home))
    return outcome(home)


@pytest.mark.usefixtures("short_waits")
def test_a_run_on_s3_survives_kills_during_uploads_failing_requests_and_cut_connections(
    tmp_path: Path, s3: S3Server
) -> None:
    complete(tmp_path, toy_spec(tmp_path), name="calm")
    spec = toy_spec(tmp_path, output={"uri": f"s3://{BUCKET}/{tmp_path.name}"})

    def every_tenth(request: Request) -> Fault | None:
        return (Fault.UNAVAILABLE if request.number % 20 else Fault.CUT_REQUEST) if request.number % 10 == 0 else None

    with proxy(s3.endpoint, every_tenth) as between:
        s3.secret(tmp_path / "secrets" / "output", endpoint=between.endpoint)
        for number, objects in ((1, 3), (2, 15)):
            child = attempt(tmp_path, spec, number, patch=announce_puts)
            for line in child.events():
                objects -= line.startswith("put") and "checkpoints/" in line
                if not objects:
                    child.signal(KILL)
                    break
            assert child.wait() == -KILL
        complete(tmp_path, spec, 3)
        assert len(between.made) > 5
    # The bucket as a folder, to be compared with the calm run's.
    client, folder = s3.client(), tmp_path / "out" / "team" / "runs" / f"toy-{UID[:8]}"
    prefix = f"{tmp_path.name}/team/runs/{folder.name}/"
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
        for item in page["Contents"]:
            path = folder / item["Key"].removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(BUCKET, item["Key"], str(path))
    assert outcome(tmp_path) == outcome(tmp_path, "calm")


def announce_puts(teller: Any) -> None:
    """A patch: every file that goes to S3 is announced."""
    from lmft_job.storage.s3 import S3Store

    original = S3Store.put_file

    def put_file(self: Any, key: str, path: Path, check: Any = None) -> str:
        teller.tell("put", key)
        return original(self, key, path, check)

    S3Store.put_file = put_file  # type: ignore[method-assign]
