"""What trackers did not take until a run's end is named in its result, and sent later by ``lmft report-to``, once."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from support import wandb_server
from support.forked import UID, complete, run_folder, toy_spec
from support.mlflow_server import MlflowServer
from support.report_samples import demo_report
from support.wandb_server import KEY, WandbServer
from typer.testing import CliRunner

from lmft_job.cli import commands
from lmft_job.trackers import sender


@pytest.fixture
def wandb() -> Iterator[WandbServer]:
    with wandb_server.running() as server:
        yield server


def lmft(*words: str) -> Result:
    return CliRunner().invoke(commands.app, list(words))


def impatient(_: Any) -> None:
    """The end of the run waits for no tracker for long."""
    sender.LAST_SECONDS = 0.5


def test_a_server_that_is_away_at_the_end_gets_all_of_it_later_and_once(
    mlflow: MlflowServer, wandb: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a run whose trackers are away while it trains and ends
    (tmp_path / "secrets/wandb").mkdir(parents=True)
    (tmp_path / "secrets/wandb/WANDB_API_KEY").write_text(KEY)
    wanted = {"mlflow": {"uri": mlflow.uri, "experiment": "later"}, "wandb": {"url": wandb.uri, "project": "toys"}}
    mlflow.freeze()
    wandb.away.set()
    child = complete(tmp_path, toy_spec(tmp_path, reportTo=wanted), patch=impatient)
    mlflow.thaw()
    wandb.away.clear()

    # then its result says what was not sent, and the commands that send it
    rows = [json.loads(line) for line in (run_folder(tmp_path) / "metrics.jsonl").read_text().splitlines()]
    losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    evaluations = [(row["step"], row["evaluation"]["evalLoss"]) for row in rows if "evaluation" in row]
    message = child.result["message"]
    assert message.count(f"steps 1 to {len(losses)} and {len(evaluations)} evaluations not sent; send it with: ") == 2
    folder = run_folder(tmp_path).as_uri()
    to_mlflow, to_wandb = [
        f"lmft report-to {folder} --{n} {u}" for n, u in (("mlflow", mlflow.uri), ("wandb", wandb.uri))
    ]
    assert f"{to_mlflow}." in message
    assert f"{to_wandb}." in message

    # when they are called
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    said = [lmft(*shlex.split(command)[1:]) for command in (to_mlflow, to_wandb)]

    # then all is there, in the runs that the attempt would have begun
    assert [(answer.exit_code, answer.output.split(": ")[-1]) for answer in said] == [
        (0, f"{len(rows)} steps and evaluations sent\n")
    ] * 2
    [run] = mlflow.runs("toy")
    assert run["info"]["status"] == "FINISHED"
    assert {"key": "lmfinetune.dev/uid", "value": UID} in run["data"]["tags"]
    assert {"key": "training.learning_rate", "value": "0.001"} in run["data"]["params"]
    assert (mlflow.history(run, "train/loss"), mlflow.history(run, "eval/loss")) == (losses, evaluations)
    there = wandb.runs[UID]
    assert (there.begun[0]["project"], there.ended) == ("toys", [{"complete": True, "exitcode": 0}])
    assert (there.history("train/loss"), there.history("eval/loss")) == (losses, evaluations)

    # and a second call sends nothing
    again = lmft("report-to", str(run_folder(tmp_path)), "--mlflow", mlflow.uri, "--wandb", wandb.uri)
    assert (again.exit_code, again.output.count("had all of it")) == (0, 2)
    assert mlflow.history(mlflow.runs("toy")[0], "train/loss") == losses
    assert len(there.lines) == len(rows)


def run_of(folder: Path, metrics: str, **files: str) -> Path:
    """A run that has finished, and reported to no tracker."""
    folder.mkdir()
    report = demo_report()
    (folder / "report.json").write_bytes(report.to_json())
    (folder / "metrics.jsonl").write_text(metrics)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(content)
    return folder


STEP = '{"step": 1, "loss": 2.5, "learningRate": NaN}\n'


def test_a_run_that_has_reported_nowhere_is_always_the_same_run_there(
    wandb: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    folder = run_of(tmp_path / "run", STEP)

    for _ in range(2):
        assert lmft("report-to", str(folder), "--wandb", wandb.uri).exit_code == 0

    [there] = wandb.runs.values()
    assert there.history("train/loss") == [(1, 2.5)]
    assert (there.begun[0]["displayName"], there.begun[0]["project"]) == (demo_report().name, demo_report().namespace)


def test_of_a_run_of_an_earlier_version_the_id_alone_is_known(
    wandb: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    folder = run_of(tmp_path / "run", STEP, tracked=json.dumps({"id": UID}))

    assert lmft("report-to", str(folder), "--wandb", wandb.uri).exit_code == 0
    assert [(name, run.history("train/loss")) for name, run in wandb.runs.items()] == [(UID, [(1, 2.5)])]


RECORD = {"id": UID, "name": "toy", "params": {}, "tags": {}}


@pytest.mark.parametrize(
    ("metrics", "record", "words"),
    [
        (STEP + "{}\n", None, "line 2 of metrics.jsonl is neither a step nor an evaluation"),
        ("[1]\n", None, "line 1 of metrics.jsonl"),
        ('{"step": "1", "loss": 1}\n', None, "line 1 of metrics.jsonl"),
        ('{"step": 1, "loss": {}}\n', None, "line 1 of metrics.jsonl"),
        ('{"step": 1, "evaluation": 7}\n', None, "line 1 of metrics.jsonl"),
        (STEP.replace("1", "2", 1) + STEP, None, "line 2 of metrics.jsonl"),
        ("[" * 2_000_000, None, "line 1 of metrics.jsonl"),
        (STEP, {"id": "' OR tags.a = '"}, "tracked.json is damaged"),
        (STEP, RECORD | {"params": {"a": {}}}, "tracked.json is damaged"),
        (STEP, RECORD | {"tags": {"lmfinetune.dev/namespace": 7}}, "tracked.json is damaged"),
        (STEP, RECORD | {"experiment": []}, "tracked.json is damaged"),
        (STEP, [1], "tracked.json is damaged"),
    ],
)
def test_a_folder_may_hold_anything(
    wandb: WandbServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    metrics: str,
    record: object,
    words: str,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    folder = run_of(tmp_path / "run", metrics, **({} if record is None else {"tracked": json.dumps(record)}))

    said = lmft("report-to", str(folder), "--wandb", wandb.uri)

    assert (said.exit_code, words in said.output) == (2, True), said.output
    assert len(said.output) < 500


def test_what_is_no_run_or_no_tracker_is_refused(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "run", STEP)
    for words, why in (
        ([str(folder)], "name the tracker: --mlflow https://mlflow.example.com"),
        ([str(folder), "--mlflow", "https://me:secret@m.example"], "--mlflow: must be an address such as"),
        ([str(tmp_path), "--mlflow", "https://m.example"], "metrics.jsonl: there is none; is it the folder of a run?"),
        ([str(tmp_path / "none"), "--mlflow", "https://m.example"], "neither a folder nor a run in"),
    ):
        said = lmft("report-to", *words)
        assert (said.exit_code, why in said.output) == (2, True), said.output
        assert "secret" not in said.output

    unreached = lmft("report-to", str(folder), "--mlflow", "http://127.0.0.1:1")
    assert (unreached.exit_code, "run the command again" in unreached.output) == (6, True)

    (folder / "report.json").unlink()
    said = lmft("report-to", str(folder), "--mlflow", "http://127.0.0.1:1")
    assert (said.exit_code, "has not finished" in said.output, "--unfinished" in said.output) == (2, True, True)
