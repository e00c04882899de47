"""Whole runs whose storage refuses, fails or is full: exit code, reason, and that nothing dear was done first."""

import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.faults import Fault, every, proxy, small_disk
from support.forked import attempt, complete, run_folder, toy_spec
from support.s3server import BUCKET, Keys, S3Server

from lmft_job.storage import Store


def unreachable() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def failing(fault: Fault) -> Callable[[ExitStack, S3Server], str]:
    return lambda stack, s3: stack.enter_context(proxy(s3.endpoint, every(1, fault))).endpoint


# Bucket, keys, endpoint; exit code, reason, and what must be said.
CASES = {
    "unknown key": (BUCKET, Keys("nobody", "x"), None, 3, "StorageAccessDenied", "the access key is unknown there"),
    "wrong secret": (BUCKET, Keys("owner", "x"), None, 3, "StorageAccessDenied", "secret key does not match"),
    "missing bucket": ("no-such-bucket", None, None, 3, "StorageAccessDenied", "there is no bucket 'no-such-bucket'"),
    "read only": (BUCKET, "reader", None, 3, "StorageAccessDenied", "what they may do in spec.output.uri"),
    "unreachable": (BUCKET, None, lambda *_: unreachable(), 6, "StorageUnavailable", "cannot be reached, after all"),
    "5xx": (BUCKET, None, failing(Fault.UNAVAILABLE), 6, "StorageUnavailable", "kept answering 503"),
    "429": (BUCKET, None, failing(Fault.TOO_MANY), 6, "StorageUnavailable", "kept answering 429"),
    "full": (BUCKET, None, failing(Fault.FULL), 6, "StorageUnavailable", "no space left in that storage"),
}


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("case", CASES)
def test_storage_that_cannot_take_the_result_ends_the_run_before_anything_dear(
    case: str, tmp_path: Path, s3: S3Server
) -> None:
    bucket, keys, endpoint, code, reason, words = CASES[case]
    if keys == "reader":
        keys = s3.reader
    elif isinstance(keys, Keys) and keys.access == "owner":
        keys = Keys(s3.owner.access, keys.secret)
    with ExitStack() as stack:
        s3.secret(tmp_path / "secrets" / "output", keys, endpoint(stack, s3) if endpoint else None)
        child = attempt(tmp_path, toy_spec(tmp_path, output={"uri": f"s3://{bucket}/{tmp_path.name}"}))
        assert child.wait() == code, child.log.read_text()
    assert child.result["reason"] == reason
    assert words in child.result["message"]
    assert child.result["message"].startswith("spec.output.uri: ")
    assert not [line for line in child.lines if not line.startswith("result")], "no model, no data, no step"
    assert not (tmp_path / "cache").exists()


def test_no_space_for_the_data_on_this_machine_is_worth_another_attempt(tmp_path: Path) -> None:
    texts = tmp_path / "large.txt"
    texts.write_text(
        "".join(f"line {number} of a text that is too long for a small disk\n" for number in range(120_000))
    )
    spec = toy_spec(tmp_path, dataset={"files": [texts.as_uri()], "format": "text"})
    with small_disk(tmp_path / "cache"):
        child = attempt(tmp_path, spec)
        assert child.wait() == 6, child.log.read_text()
    assert child.result["reason"] == "StorageUnavailable"
    assert "this machine's disk" in child.result["message"]
    assert "no space left" in child.result["message"] or "file size limit" in child.result["message"]


def test_without_an_address_for_the_output_it_says_so(tmp_path: Path) -> None:
    child = attempt(tmp_path, toy_spec(tmp_path, output={"uri": None}))
    assert child.wait() == 2
    assert "spec.output.uri: is not set" in child.result["message"]


def test_a_start_sweeps_what_a_killed_one_had_half_sent(tmp_path: Path, s3: S3Server, s3_store: Store) -> None:
    spec = toy_spec(tmp_path, output={"uri": f"s3://{BUCKET}/{tmp_path.name}"}, training={"epochs": 1})
    s3.secret(tmp_path / "secrets" / "output")
    run = f"{tmp_path.name}/team/runs/{run_folder(tmp_path).name}"
    client = s3.client()

    def half_sent() -> list[str]:
        found = client.list_multipart_uploads(Bucket=BUCKET, Prefix=f"{run}/").get("Uploads", [])
        return sorted(upload["Key"].removeprefix(f"{run}/") for upload in found)

    # given a first attempt that noted its start, and was killed while it sent files in parts
    client.put_object(Bucket=BUCKET, Key=f"{run}/attempts/attempt-0001.json", Body=b'{"attempt": 1, "step": 3}')
    left = ["checkpoints/attempt-0001/step-00000005/model.safetensors", "model/model.safetensors", "staged/model/a"]
    later = "checkpoints/attempt-0003/step-00000005/model.safetensors"
    for key in [*left, later]:
        client.create_multipart_upload(Bucket=BUCKET, Key=f"{run}/{key}")
    assert half_sent() == sorted([*left, later])
    # when the second one runs
    complete(tmp_path, spec, 2)
    # then what was left of the first is gone, and what a third may be sending is not
    assert half_sent() == [later]
    names = [item.key for item in s3_store.list(f"{run}/") if "checkpoints" not in item.key]
    assert not [name for name in names if "probe" in name]
