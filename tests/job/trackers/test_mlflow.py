"""A real MLflow server gets every step of a run once, in one run for all attempts, whatever happens to either."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from cluster.eventually import eventually
from support.forked import KILL, attempt, complete, newest_checkpoint, run_folder, toy_spec
from support.history import Training
from support.mlflow_server import MlflowServer

from lmft_api.wire.layout import METRICS
from lmft_job.trackers import sender
from lmft_job.trackers.sender import Sender
from lmft_job.trackers.servers import http
from lmft_job.trackers.servers.mlflow import Mlflow
from lmft_job.trackers.tracker import RunCard


def steps(server: MlflowServer, name: str) -> list[int]:
    """Steps of which the one run of this name has a loss; empty while there is none."""
    runs = server.runs(name)
    assert len(runs) <= 1
    return [step for step, _ in server.history(runs[0], "train/loss")] if runs else []


def last(server: MlflowServer, name: str) -> int:
    """The newest step of the one run of this name; 0 while there is none."""
    runs = server.runs(name)
    assert len(runs) <= 1
    metrics = {metric["key"]: metric["step"] for run in runs for metric in run["data"].get("metrics", [])}
    return int(metrics.get("train/loss", 0))


def test_a_run_that_is_complete(mlflow: MlflowServer, tmp_path: Path) -> None:
    spec = toy_spec(tmp_path, reportTo={"mlflow": {"uri": mlflow.uri, "experiment": "toys"}})

    complete(tmp_path, spec, name="whole")

    [run] = mlflow.runs("whole")
    assert run["info"]["status"] == "FINISHED"
    rows = [json.loads(line) for line in (run_folder(tmp_path, "whole") / METRICS).read_text().splitlines()]
    assert mlflow.history(run, "train/loss") == [(row["step"], row["loss"]) for row in rows if "loss" in row]
    assert mlflow.history(run, "eval/loss") == [
        (row["step"], row["evaluation"]["evalLoss"]) for row in rows if "evaluation" in row
    ]
    params = {param["key"]: param["value"] for param in run["data"]["params"]}
    assert params["training.learning_rate"] == "0.001"
    assert not [name for name in params if name.startswith("sample")]


def test_a_killed_run_that_resumes_repeats_no_step(mlflow: MlflowServer, tmp_path: Path) -> None:
    # given a run that is killed when the server has more of it than its newest checkpoint
    spec: dict[str, Any] = toy_spec(
        tmp_path,
        training={"epochs": 400},
        checkpoint={"everySteps": 200},
        evaluation={"everySteps": 40},
        reportTo={"mlflow": {"uri": mlflow.uri}},
    )
    child = attempt(tmp_path, spec, name="killed")
    child.until("checkpoint 200")

    def ahead() -> bool:
        child.signal(signal.SIGSTOP)  # so that no other checkpoint comes while this looks
        if last(mlflow, "killed") > newest_checkpoint(tmp_path, "killed"):
            return True
        child.signal(signal.SIGCONT)
        return False

    eventually(ahead, "steps after the checkpoint")
    child.signal(KILL)
    assert child.wait() == -KILL
    [left] = mlflow.runs("killed")
    before = mlflow.history(left, "train/loss")

    # when the next attempt resumes, and is stopped when it is further than the first was
    second = attempt(tmp_path, spec, 2, name="killed")
    eventually(lambda: last(mlflow, "killed") > before[-1][0], "steps of the second attempt")
    second.signal(15)
    second.wait()

    # then one run has each step and evaluation once, and those that were there before are as they were
    [run] = mlflow.runs("killed")
    assert run["info"]["run_id"] == left["info"]["run_id"]
    history = mlflow.history(run, "train/loss")
    assert [step for step, _ in history] == list(range(1, len(history) + 1))
    assert history[: len(before)] == before
    evaluated = [step for step, _ in mlflow.history(run, "eval/loss")]
    assert evaluated == sorted(set(evaluated))
    assert evaluated[:2] == [0, 40]
    assert second.result["counts"]["resumedFromStep"] < before[-1][0]


def test_a_server_that_is_away_misses_nothing_and_is_sent_nothing_twice(
    mlflow: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a run that reports to a server
    monkeypatch.setattr(http, "_TIMEOUT_SECONDS", 60.0)
    monkeypatch.setattr(sender, "LONGEST_PAUSE_SECONDS", 0.5)
    tracker = Mlflow(mlflow.uri, "away", RunCard("87654321-bbbb", "away", {}, {}), dict)
    monkeypatch.setattr(tracker, "pause", lambda: 0.2)
    training, said = Training(), list[str]()
    with Sender(tracker, said.append, "") as sending:
        sending.follow(training.more)
        training.train(300)
        eventually(lambda: last(mlflow, "away") == 300, "the first steps")

        # when it does not answer, and the run goes on
        monkeypatch.setattr(http, "_TIMEOUT_SECONDS", 1.0)
        mlflow.freeze()
        training.train(300)
        eventually(lambda: said, "a note")
        training.train(300)

        # then it gets all of it once it answers again, although it had taken what it did not answer
        monkeypatch.setattr(http, "_TIMEOUT_SECONDS", 60.0)
        mlflow.thaw()
        eventually(lambda: last(mlflow, "away") == 900, "all steps")
    assert steps(mlflow, "away") == list(range(1, 901))
    assert said == [
        f"nothing gets through to {tracker.name} (timed out); training continues, and it is sent later",
        f"{tracker.name} takes what is sent again",
    ]
    [run] = mlflow.runs("away")
    assert run["info"]["status"] == "FINISHED"


def test_the_end_of_a_run_waits_for_no_tracker_for_long_and_says_what_was_not_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sender, "LAST_SECONDS", 0.5)
    training, said = Training(), list[str]()
    training.train(30)
    tracker = Mlflow("http://127.0.0.1:1", "x", RunCard("1", "x", {}, {}), dict)
    with Sender(tracker, said.append, "all of it is in metrics.jsonl") as sending:
        sending.follow(training.more)

    assert said == [
        f"{tracker.name} did not take all in time ([Errno 111] Connection refused): steps 1 to 30 not sent; "
        "all of it is in metrics.jsonl"
    ]
