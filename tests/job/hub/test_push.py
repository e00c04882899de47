"""Pushing a model to the hub, against a stand-in: see hub_upload_double.py for what that does and does not show."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.forked import attempt, complete, run_folder, toy_spec
from support.hub_upload_double import READ_ONLY_TOKEN, TOKEN, HubDouble, Repository
from support.tiny_bases import save_base

from lmft_api.reasons import Reason
from lmft_job.errors import RefusedError, UnavailableError
from lmft_job.hub.push import push_to_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    import huggingface_hub
    from huggingface_hub import constants

    with HubDouble() as double:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "ENDPOINT", double.endpoint)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
        huggingface_hub.close_session()
        yield double
        huggingface_hub.close_session()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    model.mkdir()
    (model / "README.md").write_text("---\nlibrary_name: transformers\n---\n# toy\n")
    (model / "config.json").write_text('{"model_type": "gpt2"}')
    (model / "model.safetensors").write_bytes(bytes(range(256)) * 64)
    return model


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_becomes_a_private_repository_with_the_same_files(hub: HubDouble, folder: Path) -> None:
    address = push_to_hub(folder, "team-a/toy", token=TOKEN, message="Upload toy")

    repository = hub.repositories["team-a/toy"]
    assert repository.private
    assert repository.files == contents(folder)
    assert repository.commits == ["Upload toy"]
    assert address.startswith(f"{hub.endpoint}/team-a/toy/commit/")
    assert any(request.startswith("PUT /lfs/") for request in hub.requests)


def test_a_public_repository_is_made_when_asked_for(hub: HubDouble, folder: Path) -> None:
    push_to_hub(folder, "team-a/open", private=False, token=TOKEN)

    assert not hub.repositories["team-a/open"].private


def test_a_second_push_updates_the_repository(hub: HubDouble, folder: Path) -> None:
    push_to_hub(folder, "team-a/toy", token=TOKEN)
    (folder / "config.json").write_text('{"model_type": "gpt2", "n_layer": 1}')

    push_to_hub(folder, "team-a/toy", token=TOKEN)

    assert hub.repositories["team-a/toy"].files == contents(folder)
    uploads = [request for request in hub.requests if request.startswith("PUT /lfs/")]
    assert len(uploads) == 1


def test_small_files_go_through_the_clients_pipelined_upload(
    hub: HubDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    (tmp_path / "config.json").write_text("{}")

    push_to_hub(tmp_path, "team-a/toy", token=TOKEN)

    assert hub.repositories["team-a/toy"].files == {"config.json": b"{}"}


@pytest.mark.parametrize(
    ("token", "words"),
    [("hf_wrong", "does not accept the token"), (READ_ONLY_TOKEN, "may not write there")],
)
def test_a_token_that_does_not_suffice_is_refused_with_the_remedy(
    hub: HubDouble, folder: Path, token: str, words: str
) -> None:
    with pytest.raises(RefusedError, match=words) as caught:
        push_to_hub(folder, "team-a/toy", token=token)

    assert str(caught.value).startswith('spec.output.pushToHub.repository "team-a/toy"')
    assert caught.value.reason == Reason.STORAGE_ACCESS_DENIED
    assert "token" in str(caught.value)


@pytest.mark.parametrize(
    ("token", "words"),
    [("hf_wrong", "does not accept the token"), (READ_ONLY_TOKEN, "may not write there")],
)
def test_a_run_that_may_not_push_ends_before_it_trains(hub: HubDouble, tmp_path: Path, token: str, words: str) -> None:
    hub.repositories["team-a/toy"] = Repository(private=True)
    (tmp_path / "secrets" / "hub").mkdir(parents=True)
    (tmp_path / "secrets" / "hub" / "token").write_text(token)
    child = attempt(tmp_path, pushing(tmp_path))
    assert child.wait() == 3
    assert words in child.result["message"]
    assert not [line for line in child.lines if not line.startswith("result")]


def test_a_run_pushes_the_model_that_its_storage_holds(hub: HubDouble, tmp_path: Path) -> None:
    (tmp_path / "secrets" / "hub").mkdir(parents=True)
    (tmp_path / "secrets" / "hub" / "token").write_text(TOKEN)
    child = complete(tmp_path, pushing(tmp_path))
    assert child.said(f"pushed to {hub.endpoint}/team-a/toy/commit/")
    assert not hub.repositories["team-a/toy"].private
    pushed = hub.repositories["team-a/toy"].files
    stored = run_folder(tmp_path) / "model"
    assert pushed == {path.name: path.read_bytes() for path in stored.iterdir()}
    assert hub.requests[0] == "POST /api/repos/create", "asked before anything else"
    assert json.loads((run_folder(tmp_path) / "report.json").read_text())["results"]["perplexity"] > 1


@pytest.mark.parametrize("merge", [True, False])
def test_a_run_with_an_adapter_pushes_what_its_model_address_names(hub: HubDouble, tmp_path: Path, merge: bool) -> None:
    (tmp_path / "secrets" / "hub").mkdir(parents=True)
    (tmp_path / "secrets" / "hub" / "token").write_text(TOKEN)
    spec = pushing(tmp_path)
    spec["model"] = {"name": save_base(tmp_path / "base", "llama")}
    spec["training"] = {"maxSteps": 2, "adapter": {"rank": 2}}
    spec["output"]["merge"] = merge

    complete(tmp_path, spec)

    folder = run_folder(tmp_path) / ("model" if merge else "adapter")
    report = json.loads((run_folder(tmp_path) / "report.json").read_text())
    assert report["results"]["modelURI"] == folder.as_uri()
    pushed = hub.repositories["team-a/toy"].files
    assert pushed == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert ("adapter_model.safetensors" in pushed) is not merge
    if not merge:
        assert json.loads(pushed["adapter_config.json"])["base_model_name_or_path"] == str(tmp_path / "base")


def pushing(home: Path) -> dict[str, Any]:
    """A toy run that pushes; the stand-in runs in this process, and the forked attempt keeps its address."""
    push = {"repository": "team-a/toy", "private": False}
    return toy_spec(
        home, output={"pushToHub": push}, hubTokenSecretRef={"name": "hub", "key": "token"}, training={"epochs": 1}
    )


@pytest.mark.parametrize("request_pattern", ["repos/create", "preupload", "lfs/objects/batch", "PUT /lfs/", "/commit/"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_passing_failure_anywhere_is_outlived(
    hub: HubDouble, folder: Path, request_pattern: str, status: int
) -> None:
    hub.fail(request_pattern, status, times=2)

    push_to_hub(folder, "team-a/toy", token=TOKEN, sleep=lambda seconds: None)

    assert hub.repositories["team-a/toy"].files == contents(folder)


def test_a_hub_that_keeps_failing_is_unavailable_and_the_model_is_not_lost(hub: HubDouble, folder: Path) -> None:
    hub.fail("/commit/", 500, times=1_000)

    with pytest.raises(UnavailableError, match="answered 500") as caught:
        push_to_hub(folder, "team-a/toy", token=TOKEN, sleep=lambda seconds: None)

    assert "The model is in the run's storage" in str(caught.value)


def test_an_unreachable_hub_is_unavailable(hub: HubDouble, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    waits: list[float] = []
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")

    with pytest.raises(UnavailableError, match="cannot be reached"):
        push_to_hub(folder, "team-a/toy", token=TOKEN, sleep=waits.append)

    assert waits == [1.0, 2.0, 4.0]


def test_a_refused_commit_is_not_tried_again(hub: HubDouble, folder: Path) -> None:
    hub.fail("/commit/", 422, times=5)

    with pytest.raises(RefusedError, match="422"):
        push_to_hub(folder, "team-a/toy", token=TOKEN)

    assert sum("/commit/" in request for request in hub.requests) == 1


def test_offline_mode_is_named_as_the_cause(hub: HubDouble, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()

    with pytest.raises(RefusedError, match="HF_HUB_OFFLINE"):
        push_to_hub(folder, "team-a/toy", token=TOKEN)

    assert hub.requests == []
