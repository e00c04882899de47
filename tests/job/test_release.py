"""A run that another release began is taken on by this one, and ends as if it had not changed underneath."""

import json
from array import array
from pathlib import Path
from typing import Any

import pytest
from support import release
from support.pods import Pod
from support.release import Release
from support.s3server import BUCKET, S3Server

from lmft_job import recipe  # noqa: F401 - imported here, once, rather than in every child
from lmft_job.data import prepared  # noqa: F401 - as above


class Bucket:
    """The release's storage on a server of today's tests."""

    def __init__(self, left: Release, server: S3Server, home: Path) -> None:
        self.client = server.client()
        for key in self.keys("release/"):
            self.client.delete_object(Bucket=BUCKET, Key=key)
        for path in left.storage.rglob("*"):
            if path.is_file():
                self.put(path.relative_to(left.storage).as_posix(), path.read_bytes())
        for kind in ("output", "dataset"):
            server.secret(home / "secrets" / kind)

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def keys(self, prefix: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]


RELEASES = pytest.mark.parametrize("left", release.RELEASES, ids=[one.name for one in release.RELEASES])


@RELEASES
@pytest.mark.parametrize("stage", ["Train", "All"])
def test_a_run_that_the_release_began_is_resumed_and_ends_with_the_same_losses(
    left: Release, stage: str, tmp_path: Path, s3: S3Server
) -> None:
    # given what the release left of a run that was stopped after step 16 of 28
    bucket, folder = Bucket(left, s3, tmp_path), release.RUN_FOLDERS["run"]
    run_file = json.loads(left.run_file("run", 4)) | {"stage": stage}
    # when its next attempt is of today's
    pod = Pod(tmp_path, run_file)
    code, result = pod.end()
    # then it resumes, with the data, the baseline and the smaller batch that the attempts before had noted
    assert code == 0, pod.log
    assert result.counts.resumed_from_step == 16
    assert result.counts.lost_steps == 0
    assert "perDeviceBatchSize 4 → 2" in result.adjustments[0]
    assert result.provenance.dataset_fingerprint == json.loads(bucket.get(f"{folder}/run.json"))["data"]
    # what the prepare stage staged is taken; else this release's code prepares it again and says so
    began = json.loads((left.storage / folder / "run.json").read_text())["data"]
    assert (result.provenance.dataset_fingerprint == began) == (stage == "Train")
    assert ("prepared its data again" in pod.log) == (stage == "All")
    before = json.loads((left.storage / folder / "before.json").read_text())
    assert float(result.results.baseline_eval_loss) == pytest.approx(before["figures"]["loss"], abs=1e-4)
    # and ends where its twin ended, which nothing stopped; another processor rounds otherwise
    end = json.loads((left.end / "report.json").read_text())
    report = json.loads(bucket.get(f"{folder}/report.json"))
    assert report["results"]["evalLoss"] == pytest.approx(end["results"]["evalLoss"], rel=1e-4)
    assert [e["step"] for e in report["evaluations"]] == [e["step"] for e in end["evaluations"]]
    assert report["training"]["tokens"] == end["training"]["tokens"]
    [last] = [key for key in bucket.keys(f"{folder}/checkpoints/") if key.endswith("lmft_losses.f64")]
    assert floats(bucket.get(last)) == pytest.approx(floats((left.end / "lmft_losses.f64").read_bytes()), rel=1e-4)


@RELEASES
def test_a_run_that_the_release_finished_answers_with_its_result(left: Release, tmp_path: Path, s3: S3Server) -> None:
    bucket = Bucket(left, s3, tmp_path)
    bucket.put(f"{release.RUN_FOLDERS['twin']}/report.json", (left.end / "report.json").read_bytes())
    pod = Pod(tmp_path, left.run_file("twin", 3))
    code, result = pod.end()
    assert code == 0, pod.log
    told: dict[str, Any] = json.loads(left.termination_messages("twin")[-1])
    again = result.to_json()
    assert again["results"] == told["results"]
    assert again["counts"] == told["counts"]
    assert again["provenance"].items() >= told["provenance"].items()


def floats(data: bytes) -> "array[float]":
    values = array("d")
    values.frombytes(data)
    return values
