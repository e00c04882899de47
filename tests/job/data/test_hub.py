"""Data sets of the hub, against a stand-in for its API; in child processes, since its address is read at import."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.hub_data_double import COMMIT, hub

ROOT = Path(__file__).resolve().parents[3]

PROGRAM = """
import json, sys
from pathlib import Path
from support.data_helpers import settings_of
from lmft_job.hub import client as hub
from lmft_job.data.prepared import prepare
from lmft_job.errors import JobError

hub.WAITS_SECONDS = (0.01, 0.01, 0.01)
for dataset, task, token in json.loads(sys.argv[2]):
    try:
        token_file = Path(token) if token else None
        done = prepare(settings_of(dataset, task), None, store=None, cache=Path(sys.argv[1]), hub_token=token_file)
        answer = {"figures": done.figures.model_dump(), "reused": done.reused, "labels": done.labels}
    except JobError as error:
        answer = {"error": type(error).__name__, "reason": error.reason, "text": str(error), "code": error.exit_code}
    print("ANSWER " + json.dumps(answer), flush=True)
"""


@pytest.fixture(scope="module")
def stand_in() -> Iterator[tuple[str, list[str]]]:
    with hub() as (address, seen, _):
        yield address, seen


def ask(
    address: str, folder: Path, *runs: tuple[dict[str, Any], str, Path | None], **environment: str
) -> list[dict[str, Any]]:
    """What preparing each of some data sets says, one after the other in one process."""
    paths = os.pathsep.join(str(ROOT / part) for part in ("api", "jobimage", "tests"))
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "HF_HOME": str(folder / "hf"),
        "HF_ENDPOINT": address,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": paths,
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    asked = json.dumps([[data, task, str(token) if token else None] for data, task, token in runs])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder / "cache"), asked],
        env=variables,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    answers = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    assert len(answers) == len(runs), done.stderr[-3000:]
    return answers


def test_splits_slices_fields_and_class_names_come_from_the_hub(
    stand_in: tuple[str, list[str]], tmp_path: Path
) -> None:
    address, seen = stand_in
    token = tmp_path / "token"
    token.write_text("hf_secret\n")
    data = {"name": "team/reviews", "split": "train[:50]", "textField": "answers.text", "blockSize": 8}
    classify = {"name": "team/reviews", "evalSplit": "test"}
    seen.clear()

    first, again, labelled, wrong_field, wrong_split, wrong_config = ask(
        address,
        tmp_path,
        (data, "CausalLM", token),
        (data, "CausalLM", token),
        (classify, "SequenceClassification", token),
        ({**data, "textField": "answer.text"}, "CausalLM", token),
        ({**data, "split": "validation"}, "CausalLM", token),
        ({**data, "config": "other"}, "CausalLM", token),
    )

    assert (first["figures"]["train_rows"], first["figures"]["eval_rows"]) == (40, 10)
    assert (first["reused"], again["reused"]) == (False, True)
    assert labelled["labels"] == ["neg", "pos"]
    assert (labelled["figures"]["train_rows"], labelled["figures"]["eval_rows"]) == (100, 20)
    assert wrong_field["reason"] == "DatasetInvalid"
    assert "the data has text, answers.text, label; did you mean answers.text?" in wrong_field["text"]
    assert wrong_split["text"].startswith("spec.dataset.split")
    assert wrong_config["text"].startswith("spec.dataset.config")
    assert all("Bearer hf_secret" in line for line in seen if "/api/datasets/team/reviews" in line)
    assert any(f"/resolve/{COMMIT}/train.parquet" in line for line in seen)


def test_the_hubs_refusals_are_told_apart(stand_in: tuple[str, list[str]], tmp_path: Path) -> None:
    address, _ = stand_in
    token = tmp_path / "token"
    token.write_text("hf_secret")
    cases: list[tuple[dict[str, Any], Path | None, str, str, str]] = [
        (
            {"name": "team/status-401"},
            token,
            "RefusedError",
            "DatasetAccessDenied",
            "does not accept the token in spec.hubTokenSecretRef",
        ),
        (
            {"name": "team/status-401"},
            None,
            "RefusedError",
            "DatasetNotFound",
            "is not on the hub, or is private and a reader without a token may not see it",
        ),
        (
            {"name": "team/status-403"},
            None,
            "RefusedError",
            "DatasetAccessDenied",
            "the hub refuses it to a reader without a token",
        ),
        (
            {"name": "team/status-403-gated"},
            token,
            "RefusedError",
            "DatasetAccessDenied",
            "Accept the data set's terms",
        ),
        ({"name": "team/status-404"}, None, "RefusedError", "DatasetNotFound", "Check the spelling"),
        ({"name": "team/nothing"}, token, "RefusedError", "DatasetNotFound", "Check the spelling"),
        (
            {"name": "team/reviews", "revision": "v9"},
            None,
            "RefusedError",
            "DatasetNotFound",
            "Check spec.dataset.revision",
        ),
    ]

    answers = ask(address, tmp_path, *[(data, "CausalLM", given) for data, given, *_ in cases])

    for (data, _, kind, reason, words), answer in zip(cases, answers, strict=True):
        assert (answer.get("error"), answer.get("reason")) == (kind, reason), (data, answer)
        assert words in answer["text"], (data, answer)
        assert answer["code"] == 3
        assert answer["text"].startswith("spec.dataset.name")
        assert "hf_secret" not in answer["text"]


def test_a_hub_that_fails_is_worth_another_attempt(stand_in: tuple[str, list[str]], tmp_path: Path) -> None:
    address, _ = stand_in
    names = [f"team/status-{code}" for code in (429, 500, 502, 503)]

    answers = ask(address, tmp_path, *[({"name": name}, "CausalLM", None) for name in names])

    assert [answer["error"] for answer in answers] == ["UnavailableError"] * 4
    for code, answer in zip((429, 500, 502, 503), answers, strict=True):
        assert (answer["reason"], answer["code"]) == ("StorageUnavailable", 6)
        assert f"it answered {code}, after retries" in answer["text"]
        assert "Another attempt may succeed" in answer["text"]


def test_a_hub_out_of_reach_is_worth_another_attempt_and_one_switched_off_is_not(tmp_path: Path) -> None:
    data = {"name": "team/reviews"}

    [unreachable] = ask("http://127.0.0.1:9", tmp_path, (data, "CausalLM", None))
    [off] = ask("http://127.0.0.1:9", tmp_path, (data, "CausalLM", None), HF_HUB_OFFLINE="1")

    assert (unreachable["reason"], unreachable["code"]) == ("StorageUnavailable", 6)
    assert "cannot be reached" in unreachable["text"]
    assert (off["reason"], off["code"]) == ("DatasetNotFound", 3)
    assert "HF_HUB_OFFLINE forbids asking the hub" in off["text"]


def test_a_cached_data_set_is_used_offline(stand_in: tuple[str, list[str]], tmp_path: Path) -> None:
    address, _ = stand_in
    data = {"name": "team/reviews", "textField": "answers.text", "blockSize": 8}

    [online] = ask(address, tmp_path, (data, "CausalLM", None))
    [offline] = ask("http://127.0.0.1:9", tmp_path, (data, "CausalLM", None), HF_HUB_OFFLINE="1")

    assert offline["figures"]["train_blocks"] == online["figures"]["train_blocks"]
