"""The hub as the client meets it: what it answers, and when it is out of reach."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.hub_double import hub_double

ASK = """
import json, sys
from pathlib import Path
from lmft_job.errors import JobError
from lmft_job.models.sources.source import fetch_source
from lmft_job.hub import client as hub
hub.WAITS_SECONDS = (0.01, 0.01, 0.01)
for name, revision, token in json.loads(sys.argv[1]):
    try:
        fetch_source(name, Path("unused"), field="spec.model.name", revision=revision, token=token)
    except JobError as error:
        print(json.dumps([error.reason, error.exit_code, str(error)]))
"""

# Asked for, with a token or not; reason, exit code, and what must be said.
ANSWERS = {
    "not found": ("answer/404", None, "hf_secret", "ModelNotFound", 3, "Check the spelling"),
    "not found, or private": ("answer/401", None, None, "ModelNotFound", 3, "or set spec.hubTokenSecretRef"),
    "a token that is not accepted": (
        "answer/401", None, "hf_secret", "ModelAccessDenied", 3, "does not accept the token in spec.hubTokenSecretRef",
    ),
    "gated": ("answer/403", None, "hf_secret", "ModelAccessDenied", 3, "Accept the model's terms on its page"),
    "gated, without a token": ("answer/403", None, None, "ModelAccessDenied", 3, "a reader without a token"),
    "no such revision": ("answer/404", "lost", None, "ModelNotFound", 3, "Check spec.model.revision"),
    "no name at all": ("a/b/c/d", None, None, "ModelNotFound", 3, "Check the spelling"),
    "too many requests": ("answer/429", None, None, "StorageUnavailable", 6, "it answered 429, after retries"),
    "server error": ("answer/500", None, None, "StorageUnavailable", 6, "it answered 500, after retries"),
    "bad gateway": ("answer/502", None, None, "StorageUnavailable", 6, "it answered 502, after retries"),
    "unavailable": ("answer/503", None, None, "StorageUnavailable", 6, "Another attempt may succeed"),
}  # fmt: skip


def ask(home: Path, asked: list[Any], address: str, **more: str) -> list[Any]:
    """What fetching models says, in a process that has the hub's address from its start."""
    environment = {
        **os.environ, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home),
        "PYTHONPATH": os.pathsep.join(sys.path), **more,
    }  # fmt: skip
    answers = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(asked)], env=environment, capture_output=True, text=True, timeout=100
    )
    rows = [json.loads(line) for line in answers.stdout.splitlines()]
    assert len(rows) == len(asked), answers.stderr
    return rows


def test_what_the_hub_answers_decides_between_not_found_denied_and_unavailable(tmp_path: Path) -> None:
    with hub_double() as hub:
        rows = ask(tmp_path, [case[:3] for case in ANSWERS.values()], hub.address)
    for (name, _, _, reason, code, words), row in zip(ANSWERS.values(), rows, strict=True):
        assert row[:2] == [reason, code], (name, row)
        assert row[2].startswith("spec.model.name"), row
        assert words in row[2]
        assert "\n" not in row[2]
        assert "hf_secret" not in row[2]
    tries = {code: sum(f"/answer/{code}" in path for path in hub.seen) for code in (404, 429, 503)}
    assert tries[429] == tries[503] == 4, "what may pass is asked for again"
    assert tries[404] == 2, "what is refused is not"


def test_a_hub_out_of_reach_is_worth_another_attempt_and_one_switched_off_is_not(tmp_path: Path) -> None:
    asked = [["team/model", None, None]]
    [unreachable] = ask(tmp_path, asked, "http://127.0.0.1:9")
    [off] = ask(tmp_path, asked, "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert unreachable[:2] == ["StorageUnavailable", 6]
    assert "it cannot be reached, after retries" in unreachable[2]
    assert off[:2] == ["ModelNotFound", 3]
    assert "HF_HUB_OFFLINE forbids asking the hub" in off[2]
