"""Weights & Biases gets every step of a run once, in one run for all attempts, by the requests of its own package."""

import base64
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.eventually import eventually
from support import wandb_server
from support.forked import KILL, UID, attempt, complete, newest_checkpoint, run_folder, toy_spec
from support.history import Training
from support.wandb_server import KEY, WandbServer

from lmft_api.spec import Wandb
from lmft_api.wire.layout import METRICS
from lmft_job.errors import InterruptedRunError
from lmft_job.trackers import sender
from lmft_job.trackers.points import Point, Position
from lmft_job.trackers.sender import Sender
from lmft_job.trackers.servers import http, wandb
from lmft_job.trackers.servers.wandb import WeightsAndBiases
from lmft_job.trackers.tracker import RunCard

RECORDED = json.loads((Path(__file__).parents[2] / "fixtures/wandb/requests.json").read_text())


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with wandb_server.running() as running:
        yield running


def tracker(uri: str, params: dict[str, Any] | None = None) -> WeightsAndBiases:
    wanted = Wandb(project="language-models", entity="team-a", url=uri)
    card = RunCard("uid", "my-run", params or {}, {"lmfinetune.dev/namespace": "team-a"})
    return WeightsAndBiases(wanted, card, lambda: {"WANDB_API_KEY": KEY}, "team-a")


def with_key(home: Path) -> None:
    (home / "secrets/wandb").mkdir(parents=True)
    (home / "secrets/wandb/WANDB_API_KEY").write_text(f"{KEY}\n")


def asked(requests: list[dict[str, Any]]) -> dict[str, Any]:
    """What requests come to, without times, in which two runs always differ, and however they are divided."""
    queries = [request["body"] for request in requests if request["path"] == "/graphql"]
    variables = [query["variables"] for query in queries]
    streams = [request["body"] for request in requests if request["path"] != "/graphql"]
    history = [part for body in streams if (part := body.get("files", {}).get("wandb-history.jsonl"))]
    rows = [json.loads(line) for part in history for line in part["content"]]
    assert all({"_timestamp", "_runtime"} < row.keys() for row in rows)
    settings = [json.loads(given["config"]) for given in variables if given.get("config")]
    return {
        "queries": {query["operationName"] for query in queries},
        "place": {(given["project"], given["entity"], given["name"]) for given in variables},
        "paths": {request["path"] for request in requests},
        "name": {given["displayName"] for given in variables if given.get("displayName")},
        "settings": {key: value for given in settings for key, value in given.items() if key != "_wandb"},
        "metrics": [metric for given in settings for metric in given["_wandb"]["value"]["m"]],
        "first line": history[0]["offset"],
        "rows": [{key: value for key, value in row.items() if key not in ("_timestamp", "_runtime")} for row in rows],
        "end": [(body["complete"], body["exitcode"]) for body in streams if "complete" in body],
    }


def test_what_is_sent_is_what_the_package_sends(server: WandbServer) -> None:
    ours = tracker(server.uri, {"training.learning_rate": "0.001"})
    ours.open()
    ours.send([Point(step, 1.0, {"train/loss": 1 / step}) for step in (1, 2, 3)])
    ours.send([Point(3, 1.0, {"eval/loss": 0.5}, evaluation=True)])
    ours.close(None)

    sent, recorded = asked(server.requests), asked(RECORDED["first"])
    # Beside it, ours names the step of the last evaluation, which is hidden from the charts.
    assert sent["rows"][3].pop("eval/global_step") == 3
    assert sent["metrics"].pop(1) == {"1": "eval/global_step", "6": [2, 3], "7": []}
    assert sent == recorded
    basic = f"Basic {base64.b64encode(f'api:{KEY}'.encode()).decode()}"
    assert {request["headers"]["Authorization"] for request in server.requests} == {basic}


def test_a_run_that_the_package_has_begun_is_resumed_as_the_package_resumes_it(
    server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for request in RECORDED["first"]:
        server.answer(request["path"], request["body"])
    server.requests.clear()
    monkeypatch.setattr(wandb, "_SIGN_OF_LIFE_SECONDS", -1.0)

    ours = tracker(server.uri)
    there = ours.open()
    ours.send([Point(4, 1.0, {"train/loss": 0.25})])
    ours.idle()

    assert there == Position(3, -1)
    assert server.runs["uid"].history("train/loss")[2:] == [(3, 1 / 3), (4, 0.25)]
    assert [row["_step"] for row in asked(server.requests)["rows"]] == [4]
    assert asked(server.requests)["first line"] == 4
    assert json.loads(server.runs["uid"].summary)["eval/loss"] == 0.5
    assert asked(server.requests)["settings"] == {}, "those that are there stay"
    # Where nothing is new, the package says so with the same empty request.
    assert server.requests[-1]["body"] == {}
    assert {} in [request["body"] for request in RECORDED["resumed"]]


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (None, {"complete": True, "exitcode": 0}),
        (ValueError("x"), {"complete": True, "exitcode": 1}),
        (InterruptedRunError("x"), {"complete": True, "exitcode": 1, "preempting": True}),
    ],
)
def test_how_an_attempt_ends_is_shown(server: WandbServer, error: BaseException | None, end: dict[str, Any]) -> None:
    ours = tracker(server.uri)
    ours.open()
    ours.close(error)
    assert server.runs["uid"].ended == [end]


def test_a_run_that_is_complete(server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given variables that would lead the package elsewhere
    for name, value in {"WANDB_BASE_URL": "http://127.0.0.1:1", "WANDB_MODE": "disabled", "WANDB_API_KEY": "x"}.items():
        monkeypatch.setenv(name, value)
    with_key(tmp_path)

    complete(tmp_path, toy_spec(tmp_path, reportTo={"wandb": {"url": server.uri}}), name="whole")

    [run] = server.runs.values()
    rows = [json.loads(line) for line in (run_folder(tmp_path, "whole") / METRICS).read_text().splitlines()]
    assert run.history("train/loss") == [(row["step"], row["loss"]) for row in rows if "loss" in row]
    assert run.history("eval/loss") == [
        (row["step"], row["evaluation"]["evalLoss"]) for row in rows if "evaluation" in row
    ]
    assert [row["_step"] for row in run.lines.values()] == list(range(len(rows)))
    assert run.ended == [{"complete": True, "exitcode": 0}]
    [begun] = run.begun
    settings = json.loads(begun["config"])
    assert (begun["project"], begun["displayName"]) == ("team", "whole")
    assert settings["training.learning_rate"] == {"value": 0.001}
    assert not [name for name in settings if name.startswith("sample")]
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "wandb"]
    assert not [path for path in written if KEY.encode() in path.read_bytes()]


def test_a_killed_run_that_resumes_repeats_no_step(server: WandbServer, tmp_path: Path) -> None:
    # given a run that is killed when the server has more of it than its newest checkpoint
    with_key(tmp_path)
    spec: dict[str, Any] = toy_spec(
        tmp_path,
        training={"epochs": 400},
        checkpoint={"everySteps": 200},
        evaluation={"everySteps": 40},
        reportTo={"wandb": {"url": server.uri, "project": "toys"}},
    )
    child = attempt(tmp_path, spec, name="killed")
    child.until("checkpoint 200")

    def losses() -> list[tuple[int, float]]:
        return server.runs[UID].history("train/loss") if UID in server.runs else []

    def ahead() -> bool:
        child.signal(signal.SIGSTOP)  # so that no other checkpoint comes while this looks
        if losses() and losses()[-1][0] > newest_checkpoint(tmp_path, "killed"):
            return True
        child.signal(signal.SIGCONT)
        return False

    eventually(ahead, "steps after the checkpoint")
    child.signal(KILL)
    assert child.wait() == -KILL
    before = losses()

    # when the next attempt resumes, and is stopped when it is further than the first was
    second = attempt(tmp_path, spec, 2, name="killed")
    eventually(lambda: losses()[-1][0] > before[-1][0], "steps of the second attempt")
    second.signal(15)
    second.wait()

    # then one run has each step and evaluation once, and those that were there before are as they were
    [run] = server.runs.values()
    assert losses()[: len(before)] == before
    assert [step for step, _ in losses()] == list(range(1, len(losses()) + 1))
    evaluated = [step for step, _ in run.history("eval/loss")]
    assert evaluated == sorted(set(evaluated))
    assert evaluated[:2] == [0, 40]
    assert second.result["counts"]["resumedFromStep"] < before[-1][0]
    assert [row["_step"] for row in run.lines.values()] == list(range(len(run.lines)))
    assert run.ended == [{"complete": True, "exitcode": 1, "preempting": True}]


def test_a_server_that_is_away_misses_nothing_and_has_nothing_twice(
    server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a run that reports to a server
    monkeypatch.setattr(sender, "LONGEST_PAUSE_SECONDS", 0.2)
    ours = tracker(server.uri)
    monkeypatch.setattr(ours, "pause", lambda: 0.1)
    training, said = Training(), list[str]()

    def losses() -> list[int]:
        return [step for step, _ in server.runs["uid"].history("train/loss")] if "uid" in server.runs else []

    with Sender(ours, said.append, "") as sending:
        sending.follow(training.more)
        training.train(300)
        eventually(lambda: len(losses()) == 300, "the first steps")

        # when it takes what comes without an answer, and the run goes on
        monkeypatch.setattr(http, "_TIMEOUT_SECONDS", 0.3)
        server.away.set()
        training.train(300)
        eventually(lambda: said, "a note")
        training.train(300)

        # then it has all of it once
        monkeypatch.setattr(http, "_TIMEOUT_SECONDS", 60.0)
        server.away.clear()
        eventually(lambda: len(losses()) == 900, "all steps")
    assert losses() == list(range(1, 901))
    assert [row["_step"] for row in server.runs["uid"].lines.values()] == list(range(900))
    assert said == [
        f"nothing gets through to {ours.name} (timed out); training continues, and it is sent later",
        f"{ours.name} takes what is sent again",
    ]
    assert server.runs["uid"].ended[-1] == {"complete": True, "exitcode": 0}
