"""``lmft compare``: which run is named the best, when none is, and what is shown beside."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmft_api.tasks import Task
from lmft_api.wire.report import (
    DatasetFigures,
    ModelSummary,
    Report,
    ResultFigures,
    SampleOutcome,
    TrainingFigures,
)
from lmft_job.cli import commands
from lmft_job.cli.compare.comparison import compare


def report(
    name: str,
    loss: float | None = 4.0,
    error: float | None = 0.01,
    *,
    task: Task = Task.CAUSAL_LM,
    data: str | None = "f1",
    settings: dict | None = None,
    accuracy: tuple[float, float] | None = None,
    rows: int = 100,
    by_row: bool = False,
    answers: dict[str, str] | None = None,
) -> Report:
    by_row = by_row or accuracy is not None
    return Report(
        name=name,
        task=task,
        model=ModelSummary(name="gpt2"),
        results=ResultFigures(
            eval_loss=loss,
            eval_loss_standard_error=error,
            accuracy=accuracy[0] if accuracy else None,
            accuracy_standard_error=accuracy[1] if accuracy else None,
            samples=[SampleOutcome(prompt=prompt, after=answer) for prompt, answer in (answers or {}).items()],
        ),
        dataset=DatasetFigures(
            train_rows=900, eval_rows=rows, eval_blocks=None if by_row else 50, train_tokens=9, fingerprint=data
        ),
        training=TrainingFigures(steps=1),
        settings={"dataset.name": "d", "training.learning_rate": 1e-5, **(settings or {})},
    )


CLASSIFIER = {"task": Task.SEQUENCE_CLASSIFICATION, "loss": 0.5}
VERDICTS = {
    "clearly better": (
        [report("a", 4.0), report("b", 3.0)],
        1,
        "b has the lowest loss; the difference to a is 1 ± 0.014.",
    ),
    "within the uncertainty": (
        [report("a", 4.0, 0.1), report("b", 3.9, 0.1)],
        1,
        "b has the lowest loss, but the difference to a is 0.1 ± 0.14: with other held-out rows the order may be "
        "another.",
    ),
    "uncertainty unknown": (
        [report("a", 4.0, None), report("b", 3.0)],
        1,
        "b has the lowest loss; the uncertainty of the difference is not known.",
    ),
    "equal": ([report("a"), report("b")], None, "a and b have the same loss."),
    "best of three against the second": (
        [report("a", 5.0), report("b", 3.0), report("c", 4.0)],
        1,
        "b has the lowest loss; the difference to c is 1 ± 0.014.",
    ),
    "accuracy: more is better": (
        [
            report("a", accuracy=(0.9, 0.01), **CLASSIFIER),
            report("b", accuracy=(0.8, 0.01), **CLASSIFIER),
        ],
        0,
        "a has the highest accuracy; the difference to b is 0.1 ± 0.014.",
    ),
    "accuracy with another tokenizer": (
        [
            report("a", accuracy=(0.9, 0.01), data="f1", **CLASSIFIER),
            report("b", accuracy=(0.8, 0.01), data="f2", **CLASSIFIER),
        ],
        0,
        "a has the highest accuracy; the difference to b is 0.1 ± 0.014.",
    ),
    "not a number": (
        [report("a", float("nan")), report("b")],
        None,
        "Not ranked: fewer than two runs have a loss that is a number.",
    ),
    "other tasks": (
        [report("a"), report("b", accuracy=(0.8, 0.01), **CLASSIFIER)],
        None,
        "Not ranked: the runs learn different tasks (CausalLM, SequenceClassification).",
    ),
    "other data": (
        [report("a"), report("b", data="f2", settings={"dataset.test_percent": 10})],
        None,
        "Not ranked: the runs were measured on different held-out data (dataset.testPercent differ).",
    ),
    "another seed draws other rows": (
        [report("a", settings={"training.seed": 1}), report("b", data="f2", settings={"training.seed": 2})],
        None,
        "Not ranked: the runs were measured on different held-out data (training.seed differ).",
    ),
    "other rows": (
        [report("a"), report("b", data="f2", rows=99)],
        None,
        "Not ranked: the runs were measured on different held-out data (another number of rows).",
    ),
    "another tokenizer": (
        [report("a", data="f1"), report("b", data="f2")],
        None,
        "Not ranked: the tokenizers or the contents of the data differ, and a loss for each token can be compared only "
        "between runs with the same tokens.",
    ),
    "conversations with another tokenizer, which have no blocks": (
        [report("a", data="f1", by_row=True), report("b", data="f2", by_row=True)],
        None,
        "Not ranked: the tokenizers or the contents of the data differ, and a loss for each token can be compared only "
        "between runs with the same tokens.",
    ),
    "no fingerprint": (
        [report("a", data=None), report("b", data=None)],
        None,
        "Not ranked: the tokenizers or the contents of the data differ, and a loss for each token can be compared only "
        "between runs with the same tokens.",
    ),
}


@pytest.mark.parametrize(("reports", "best", "verdict"), VERDICTS.values(), ids=VERDICTS)
def test_the_verdict(reports: list[Report], best: int | None, verdict: str) -> None:
    found = compare(reports, [one.name for one in reports])

    assert (found.verdict, found.best) == (verdict, best)


def test_what_differs_and_what_was_answered_is_shown() -> None:
    runs = [
        report("a", settings={"training.learning_rate": 1e-5}, answers={"Hi": "one", "only a": "x"}),
        report("b", settings={"training.learning_rate": 3e-5, "training.adapter.rank": 8}, answers={"Hi": "two"}),
    ]

    found = compare(runs, ["a", "b"])

    assert found.differences == {"training.learningRate": ["1e-05", "3e-05"], "training.adapter.rank": ["–", "8"]}
    assert found.samples == {"Hi": ["one", "two"]}


def test_runs_are_found_by_folder_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, run in (("elsewhere/a", report("same", 4.0)), ("runs/default/runs/b", report("same", 3.0))):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "report.json").write_bytes(run.to_json())

    text = CliRunner().invoke(commands.app, ["compare", "elsewhere/a", "b"])
    found = json.loads(
        CliRunner().invoke(commands.app, ["compare", "elsewhere/a/report.json", "b", "-o", "json"]).output
    )

    assert text.exit_code == 0, text.output
    assert "same (2) has the lowest loss" in text.output
    assert found["best"] == "same (2)"
    assert found["figures"]["evalLoss"][1] == {"value": 3.0, "standardError": 0.01}


def test_every_run_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/report.json").write_text('{"name": 3}')

    done = CliRunner().invoke(commands.app, ["compare", "nowhere", "unfinished", "damaged"])

    assert done.exit_code == 2
    assert done.output.splitlines() == [
        "nowhere: neither a folder nor a run in runs/default/runs",
        "unfinished: no report.json there; is it the folder of a run that has finished?",
        "damaged: report.json is not a report of a run",
    ]


@pytest.mark.parametrize("evil", ["[/]", "[bold]x[/bold]", "[link=file:///x]y[/]"])
def test_brackets_in_a_report_are_text(evil: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        settings = {"training.optimizer": f"{evil} {name}", f"x{evil[:3]}": name}
        (tmp_path / name / "report.json").write_bytes(report(name, settings=settings).to_json())

    done = CliRunner().invoke(commands.app, ["compare", str(tmp_path / "a"), str(tmp_path / "b")])

    assert done.exit_code == 0, done.output
    assert evil in done.output


@pytest.mark.parametrize("before", range(20, 80))
def test_no_line_begins_a_command_to_a_ci_runner_wherever_a_table_breaks_it(before: int, tmp_path: Path) -> None:
    for name in ("a", "b"):
        settings = {"training.optimizer": f"{'x' * (before - 20)}::error::{name}"}
        answers = {"p": f"{'x ' * (before // 2)}{'y' * (before % 2)} ::error::{name}"}
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_bytes(report(name, settings=settings, answers=answers).to_json())

    done = CliRunner().invoke(commands.app, ["compare", str(tmp_path / "a"), str(tmp_path / "b")])

    assert done.exit_code == 0, done.output
    assert [line for line in done.output.splitlines() if line.lstrip().startswith("::")] == []


def test_nothing_in_a_report_steers_the_terminal(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        hostile = report(f"{name}\x1b[2J[red]", answers={"\x1b]0;x\x07": "[/]\x1b[31m\nline"}, data=name)
        (tmp_path / name / "report.json").write_bytes(hostile.to_json())

    done = CliRunner().invoke(commands.app, ["compare", str(tmp_path / "a"), str(tmp_path / "b")])

    assert done.exit_code == 0, done.output
    assert "\x1b" not in done.output
    assert "[red]" in done.output
