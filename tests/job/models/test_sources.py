"""A model or tokenizer from where a manifest may say it lies: a folder, s3://, a config alone."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.complete_folders import files_of
from support.forked import attempt, complete, run_folder, toy_spec
from support.s3server import BUCKET, Keys, S3Server

from lmft_job.models.sources.source import fetch_source


def report_of(home: Path) -> dict[str, Any]:
    return dict(json.loads((run_folder(home) / "report.json").read_text()))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of a run whose model the others start from."""
    home = tmp_path_factory.mktemp("first")
    complete(home, toy_spec(home))
    return home


def place(first: Path, home: Path, kind: str, s3: S3Server) -> str:
    """The first run's model at an address of a kind."""
    folder = run_folder(first) / "model"
    if kind == "checkpoint":  # the last one, which a run leaves
        (folder,) = (run_folder(first) / "checkpoints").glob("attempt-*/step-*")
    if kind in ("file", "checkpoint"):
        return folder.as_uri()
    for path in folder.iterdir():
        s3.client().upload_file(str(path), BUCKET, f"{home.name}/model/{path.name}")
    s3.secret(home / "secrets" / "model", s3.reader)  # a model is only read
    return f"s3://{BUCKET}/{home.name}/model"


@pytest.mark.parametrize("kind", ["file", "checkpoint", "s3"])
def test_a_run_starts_where_the_model_of_another_ended(kind: str, first: Path, tmp_path: Path, s3: S3Server) -> None:
    spec = toy_spec(tmp_path)
    spec["model"] = {"name": place(first, tmp_path, kind, s3)}
    complete(tmp_path, spec)
    before, after = report_of(first), report_of(tmp_path)
    assert after["results"]["baselinePerplexity"] == pytest.approx(before["results"]["perplexity"], rel=1e-6)
    assert after["results"]["samples"][0]["before"] == before["results"]["samples"][0]["after"]
    assert after["results"]["perplexity"] < before["results"]["perplexity"]
    assert after["model"]["baseModel"] == spec["model"]["name"]


@pytest.mark.parametrize("target", ["circle", "nowhere"])
def test_a_folder_may_have_blanks_and_links_that_lead_nowhere(target: str, tmp_path: Path) -> None:
    folder = tmp_path / "my models" / "ü%20"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "circle").symlink_to(target)

    found = fetch_source(folder.as_uri(), tmp_path / "fetched", field="spec.model.name")

    assert found.path == folder


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_a_fresh_model_takes_a_named_tokenizer(kind: str, first: Path, tmp_path: Path, s3: S3Server) -> None:
    spec = toy_spec(tmp_path)
    spec["model"]["tokenizer"] = {"name": place(first, tmp_path, kind, s3)}
    complete(tmp_path, spec)
    theirs, ours = (run_folder(home) / "model" / "tokenizer.json" for home in (first, tmp_path))
    assert json.loads(ours.read_text())["model"] == json.loads(theirs.read_text())["model"]
    # The same tokens of the same texts, and weights drawn from the same seed: the same run.
    assert report_of(tmp_path)["results"]["perplexity"] == report_of(first)["results"]["perplexity"]


@pytest.mark.parametrize(
    ("address", "keys", "reason", "words"),
    [
        (f"s3://{BUCKET}/none", None, "ModelNotFound", "spec.model.name: there is nothing below"),
        ("s3://no-such-bucket/model", None, "ModelNotFound", "spec.model.name: there is no bucket 'no-such-bucket'"),
        (f"s3://{BUCKET}/none", Keys("nobody", "x"), "ModelAccessDenied", "spec.model.credentialsSecretRef"),
    ],
)
def test_a_model_that_storage_does_not_give_is_told(
    address: str, keys: Keys | None, reason: str, words: str, tmp_path: Path, s3: S3Server
) -> None:
    spec = toy_spec(tmp_path)
    spec["model"] = {"name": address}
    s3.secret(tmp_path / "secrets" / "model", keys)
    child = attempt(tmp_path, spec)
    assert child.wait() == 3
    assert child.result["reason"] == reason
    assert words in child.result["message"]


def test_a_checkpoint_that_was_altered_is_no_model_to_start_from(first: Path, tmp_path: Path) -> None:
    (checkpoint,) = (run_folder(first) / "checkpoints").glob("attempt-*/step-*")
    copy = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    weights = files_of(copy) / "model.safetensors"
    body = weights.read_bytes()
    weights.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))

    child = attempt(tmp_path, toy_spec(tmp_path) | {"model": {"name": copy.as_uri()}})

    assert child.wait() == 3
    assert child.result["reason"] == "ModelNotFound"
    assert "spec.model.name" in child.result["message"]
    assert "model.safetensors was altered" in child.result["message"]
