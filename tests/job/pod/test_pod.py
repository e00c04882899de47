"""The container's entry: a run file in, a termination message out, in every ending."""

import hashlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from support.faults import Fault, Request, proxy
from support.forked import UID, toy_spec
from support.pods import Pod
from support.progress_double import server
from support.s3server import BUCKET, S3Server
from support.shortage import short_of_memory


def pod(home: Path, run_file: dict[str, Any] | str) -> tuple[int, Any]:
    """Run the entry to its end."""
    return Pod(home, run_file).end()


def run_file(spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "toy", "namespace": "team", "uid": UID, "spec": spec, **more}


def test_a_run_file_becomes_a_result(tmp_path: Path) -> None:
    spec = toy_spec(tmp_path, training={"maxSteps": 6})
    del spec["training"]["epochs"]
    code, result = pod(tmp_path, run_file(spec, attempt=1))
    assert code == 0
    assert result.reason == "Completed"
    assert float(result.results.perplexity) > 1
    assert result.checkpoint.step == 6
    assert result.counts.steps == 6
    assert result.provenance.versions["torch"]


def test_a_run_that_cannot_work_says_so_in_its_message(tmp_path: Path) -> None:
    spec = toy_spec(tmp_path, dataset={"textField": "body"})
    code, result = pod(tmp_path, run_file(spec))
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
    code, result = pod(tmp_path, run_file(spec))
    assert code == 2
    assert "hf_verysecretvalue" not in result.message
    assert "hf_verysecretvalue" not in (tmp_path / "log").read_text()


def test_a_secret_in_a_traceback_does_not_leave_the_pod_either(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets" / "output"
    secrets.mkdir(parents=True)
    (secrets / "AWS_SECRET_ACCESS_KEY").write_text("averysecretvalue")

    def fail() -> None:
        def train(*_: Any) -> None:
            raise RuntimeError("a library says: key averysecretvalue is bad")

        import lmft_job.recipe

        lmft_job.recipe.train = train

    child = Pod(tmp_path, run_file(toy_spec(tmp_path)), fail)
    code, result = child.end()
    assert (code, result.reason) == (1, "InternalError")
    assert "key [redacted] is bad" in result.message
    assert "RuntimeError: a library says: key [redacted] is bad" in child.log
    assert "averysecretvalue" not in child.log


def test_storage_that_falls_silent_does_not_keep_a_stopped_pod_beyond_its_grace_period(
    tmp_path: Path, s3: S3Server
) -> None:
    spec = toy_spec(tmp_path, output={"uri": f"s3://{BUCKET}/{tmp_path.name}"})

    def silent_after_the_first_checkpoint(request: Request) -> Fault | None:
        return Fault.SILENT if request.method == "PUT" and "step-00000010" in request.path else None

    with proxy(s3.endpoint, silent_after_the_first_checkpoint) as between:
        s3.secret(tmp_path / "secrets" / "output", endpoint=between.endpoint)
        child = Pod(tmp_path, run_file(spec, graceSeconds=4))
        while not between.made:
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGTERM)
        code, result = child.end()
    assert (code, result.reason) == (75, "Interrupted")
    assert "checkpoint 10 did not end within the grace period" in result.message
    assert result.checkpoint.step == 5


def test_out_of_accelerator_memory_a_fresh_process_goes_on_from_the_newest_checkpoint(tmp_path: Path) -> None:
    # Dropout draws other masks for other batches.
    still = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    spec = toy_spec(tmp_path, training={"gradientCheckpointing": False})
    spec["model"]["fromConfig"] |= still
    code, calm = pod(tmp_path, run_file(spec, name="calm"))
    assert code == 0
    # given memory for two rows, and a shortage that shows in step 8, after the checkpoint of step 5
    child = Pod(tmp_path, run_file(spec), short_of_memory(2, from_step=7), PYTHONPATH=os.pathsep.join(sys.path))
    code, result = child.end()
    # then one pod, whose process was replaced, did the rest
    assert code == 0, child.log
    assert child.log.count("toy · CausalLM") == 2
    assert child.log.count("before    perplexity") == 2
    assert "continuing in a new process" in child.log
    assert result.adjustments == [
        "out of accelerator memory at step 7: perDeviceBatchSize 4 → 2, gradientAccumulationSteps 1 → 2"
    ]
    assert (result.counts.resumed_from_step, result.counts.lost_steps) == (5, 2)
    assert result.counts.total_steps == calm.counts.total_steps
    assert float(result.results.perplexity) == pytest.approx(float(calm.results.perplexity), rel=1e-3)
    report = json.loads((tmp_path / "out/team/runs" / f"toy-{UID[:8]}" / "report.json").read_text())
    assert report["training"]["adjustments"] == result.adjustments
    assert report["training"]["resumes"] == [{"step": 5, "lostSteps": 2, "attempt": 1}]


def test_a_model_that_the_accelerator_cannot_hold_at_all_ends_with_exit_4(tmp_path: Path) -> None:
    def no_room() -> None:
        def to(*_: Any) -> None:
            raise torch.OutOfMemoryError("simulated")

        torch.nn.Module.to = to  # type: ignore[method-assign, assignment]

    code, result = Pod(tmp_path, run_file(toy_spec(tmp_path)), no_room).end()
    assert (code, result.reason) == (4, "AcceleratorOutOfMemory")
    assert "the model's weights alone do not fit" in result.message


def test_a_progress_server_that_accepts_and_never_answers_costs_no_step_and_not_the_result(tmp_path: Path) -> None:
    def impatient() -> None:
        from lmft_job.observers import reporter

        reporter.TIMEOUT_SECONDS, reporter.LAST_TIMEOUT_SECONDS = 0.2, 0.2

    released = threading.Event()
    with server(silent=released) as (url, taken):
        code, result = Pod(tmp_path, run_file(toy_spec(tmp_path)), impatient, KUBEFLOW_TRAINER_SERVER_URL=url).end()
        assert not released.is_set()
    assert (code, result.reason) == (0, "Completed")
    assert taken


def test_a_library_that_holds_the_main_thread_does_not_hold_a_stopped_pod(tmp_path: Path) -> None:
    def dig() -> None:
        def find_sources(*_: Any) -> None:
            # Said once the call below is under way: before it, the handler would still have its chance.
            threading.Timer(1, lambda: print("digging", flush=True)).start()
            # One call into C that gives no signal handler a chance, for a minute if nothing ends the process.
            hashlib.pbkdf2_hmac("sha256", b"", b"", 60_000_000)

        import lmft_job.recipe

        lmft_job.recipe.find_sources = find_sources

    child = Pod(tmp_path, run_file(toy_spec(tmp_path), graceSeconds=2), dig)
    child.until("digging")
    os.kill(child.pid, signal.SIGTERM)
    code, result = child.end()
    assert (code, result.reason) == (75, "Interrupted")
    assert result.message == "stopped by SIGTERM, and did not end within 1.6 seconds"
