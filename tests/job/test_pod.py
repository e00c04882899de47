"""The container's entry: a run file in, a termination message out, in every ending."""

import json
import os
from pathlib import Path
from typing import Any

from job.forked import UID, toy_spec

from lmft_api.result import decode


def pod(home: Path, run_file: dict[str, Any] | str) -> tuple[int, Any]:
    """Run the entry in a forked child; its exit code and the decoded termination message."""
    (home / "run.json").write_text(run_file if isinstance(run_file, str) else json.dumps(run_file))
    message = home / "termination-log"
    pid = os.fork()
    if not pid:
        code = 99
        try:
            log = os.open(home / "log", os.O_CREAT | os.O_WRONLY)
            os.dup2(log, 1)
            os.dup2(log, 2)
            from lmft_job.pod_run import run_attempt

            words = [
                "--run-file", home / "run.json", "--termination-log", message, "--work", home / "work",
                "--secrets", home / "secrets",
            ]  # fmt: skip
            code = run_attempt([str(word) for word in words])
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert len(message.read_bytes()) <= 4096
    return status, decode(message.read_text())


def test_a_run_file_becomes_a_result(tmp_path: Path) -> None:
    spec = toy_spec(tmp_path, training={"maxSteps": 6})
    del spec["training"]["epochs"]
    code, result = pod(tmp_path, {"name": "toy", "namespace": "team", "uid": UID, "attempt": 1, "spec": spec})
    assert code == 0
    assert result.reason == "Completed"
    assert float(result.results.perplexity) > 1
    assert result.checkpoint.step == 6
    assert result.counts.steps == 6
    assert result.provenance.versions["torch"]


def test_a_run_that_cannot_work_says_so_in_its_message(tmp_path: Path) -> None:
    spec = toy_spec(tmp_path, dataset={"textField": "body"})
    code, result = pod(tmp_path, {"name": "toy", "namespace": "team", "uid": UID, "spec": spec})
    assert code == 2
    assert result.reason == "DatasetInvalid"
    assert "textField" in result.message


def test_a_run_file_that_is_none_is_an_answer_too(tmp_path: Path) -> None:
    code, result = pod(tmp_path, "{}")
    assert code == 2
    assert result.reason == "InvalidSpec"


def test_a_secret_that_an_error_quotes_does_not_leave_the_pod(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets" / "hub"
    secrets.mkdir(parents=True)
    (secrets / "token").write_text("hf_verysecretvalue\n")
    spec = toy_spec(tmp_path, dataset={"textField": "hf_verysecretvalue"})
    code, result = pod(tmp_path, {"name": "toy", "namespace": "team", "uid": UID, "spec": spec})
    assert code == 2
    assert "hf_verysecretvalue" not in result.message
    assert "hf_verysecretvalue" not in (tmp_path / "log").read_text()
