"""Sweeps: which runs there are, what they share, how they stop and resume, and what is said of them."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.local_runs import manifest, run_here
from typer.testing import CliRunner

from lmft_api.manifest.reader import read_text
from lmft_api.manifest.validation import document_problems
from lmft_api.spec import LMFineTuneSpec
from lmft_api.spec.resolved import resolve
from lmft_api.wire.layout import BEFORE, BEFORE_UNITS
from lmft_job import recipe  # noqa: F401 - imported here, once, rather than in every child
from lmft_job.cli import commands
from lmft_job.cli.manifest import Wishes
from lmft_job.cli.run import LocalOptions
from lmft_job.cli.sweep import command
from lmft_job.cli.sweep.command import run_sweep
from lmft_job.cli.sweep.manifests import planned
from lmft_job.cli.sweep.plan import baseline_key, members, parse_sweep
from lmft_job.observers.terminal.console import ConsoleObserver
from lmft_job.process.signals import Interrupt

AXES = ["training.learningRate=1e-4,1e-2", "training.weightDecay=0,0.1"]


def names(name: str, *texts: str) -> list[str]:
    return [member.name for member in members(name, parse_sweep(texts))]


def test_every_combination_has_a_name_that_says_what_it_is() -> None:
    assert names("eli5", "training.learningRate=1e-5,5e-5", "training.adapter.rank=8,16") == [
        "eli5-learningrate-1e-5-rank-8",
        "eli5-learningrate-1e-5-rank-16",
        "eli5-learningrate-5e-5-rank-8",
        "eli5-learningrate-5e-5-rank-16",
    ]


def test_names_that_would_be_long_or_equal_are_hashed_and_stay_when_values_are_added() -> None:
    long = names("a" * 60, "training.learningRate=1e-5,5e-5")
    alike = names("a", "sample.prompts=[x y],[x-y]")
    assert all(len(name) <= 52 for name in long)
    assert len(set(long)) == len(set(alike)) == 2
    assert set(long) < set(names("a" * 60, "training.learningRate=1e-5,2e-5,5e-5"))


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        (["training.seed=1,2", "spec.training.seed=3"], "training.seed is given twice"),
        (["a=" + ",".join(map(str, range(50))), "b=1,2,3,4,5"], "250 runs are more than a sweep takes, 200"),
    ],
)
def test_a_sweep_that_is_none_is_refused(texts: list[str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_sweep(texts)


BASE = {"model": {"name": "a/b"}, "dataset": {"name": "c/d"}}


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({}, {"training": {"learningRate": "1e-3", "epochs": 9}}, True),
        ({"training": {"adapter": {"rank": 8}}}, {"training": {"adapter": {"rank": 16}}}, True),
        ({"training": {"adapter": {"type": "DoRA"}}}, {"training": {"adapter": {"type": "DoRA", "rank": 8}}}, False),
        ({}, {"training": {"seed": 7}}, False),  # another split, and other samples
        ({}, {"dataset": {"name": "c/e"}}, False),
        ({}, {"training": {"precision": "BF16"}}, False),
        ({}, {"sample": {"prompts": ["x"]}}, False),
        ({}, {"output": {"uri": "s3://other"}, "evaluation": {"everySteps": 5}}, True),
    ],
)
def test_what_was_measured_before_training_is_shared_where_it_is_the_same(
    first: dict[str, Any], second: dict[str, Any], same: bool
) -> None:
    keys = [baseline_key(resolve(LMFineTuneSpec.parse({**BASE, **one})).flat()) for one in (first, second)]
    assert (keys[0] == keys[1]) is same


def sweep_here(home: Path, path: Path, *texts: str, stop_after: int | None = None) -> subprocess.CompletedProcess[str]:
    """The sweep in a child; ``stop_after`` asks it to stop at the second step of the run after so many."""
    return run_here(home, path, lambda: swept(path, texts, stop_after))


def swept(path: Path, texts: Sequence[str], stop_after: int | None) -> None:
    """In the child, which ends here."""
    interrupt = Interrupt()
    interrupt.install()
    begun: list[str] = []
    headline, step = ConsoleObserver.headline, ConsoleObserver.step

    def announce(self: Any, head: Any) -> None:
        begun.append(head.name)
        headline(self, head)

    def stepped(self: Any, done: Any) -> None:
        step(self, done)
        if stop_after is not None and len(begun) > stop_after and done.step == 2:
            os.kill(os.getpid(), 2)

    ConsoleObserver.headline, ConsoleObserver.step = announce, stepped  # type: ignore[method-assign]
    code = 99
    try:
        code = run_sweep(path, parse_sweep(texts), LocalOptions(), interrupt)
    finally:
        sys.stdout.flush()
        os._exit(code)


def folder(home: Path, name: str) -> Path:
    return home / "runs/default/runs" / name


@pytest.mark.timeout(900)
def test_a_sweep_is_stopped_resumed_and_compared_and_its_runs_are_as_if_they_had_run_alone(tmp_path: Path) -> None:
    # given a sweep of two that is stopped in its second run
    path = manifest(tmp_path)
    stopped = sweep_here(tmp_path, path, "training.learningRate=1e-4,1e-2", stop_after=1)
    assert stopped.returncode == 75, stopped.stderr
    assert "the sweep is stopped: 1 of 2 runs are done" in stopped.stderr

    # when the same command is given again
    done = sweep_here(tmp_path, path, "training.learningRate=1e-4,1e-2")

    # then the first is not run again, the second resumes, and one table names the best
    assert done.returncode == 0, done.stderr
    assert "1/2  training.learningRate=1e-4  finished before" in done.stdout
    assert "resumed from step" in done.stdout
    verdict = done.stdout.rstrip().splitlines()[-1]
    assert verdict.startswith("training.learningRate=")
    assert "has the lowest" in verdict
    assert "±" in verdict
    # the data was prepared once
    assert len(list((tmp_path / "runs/default/datasets").iterdir())) == 1
    # and the second has the figures of a run that was alone
    assert run_here(tmp_path, path, output="alone", wishes=Wishes.parse(["training.learningRate=1e-2"])).returncode == 0
    alone = json.loads((tmp_path / "alone/default/runs/toy/report.json").read_text())
    swept_report = json.loads((folder(tmp_path, "toy-learningrate-1e-2") / "report.json").read_text())
    assert figures(swept_report) == figures(alone)


@pytest.mark.parametrize(("change", "shared"), [("training.epochs=1,2", True), ("training.seed=1,2", False)])
def test_a_member_takes_the_baseline_of_one_that_measured_the_same(change: str, shared: bool, tmp_path: Path) -> None:
    # given two members, the first of which has measured the model before training
    found = planned(manifest(tmp_path), parse_sweep([change]), None)
    assert found is not None
    runs = [command._opened(member, document, str(tmp_path / "out")) for _, member, document in found]
    runs[0].store.put_bytes(BEFORE, b"figures")
    runs[0].store.put_bytes(BEFORE_UNITS, b"units")
    # when the second is about to start
    command._share_baseline(runs[1], runs)
    # then it has them if they would be the same
    found = (runs[1].store.get_bytes(BEFORE), runs[1].store.get_bytes(BEFORE_UNITS))
    assert found == ((b"figures", b"units") if shared else (None, None))


def figures(report: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in report["results"].items() if not key.endswith("URI")}


def test_one_mistake_in_one_combination_is_told_before_anything_runs(tmp_path: Path) -> None:
    path = manifest(tmp_path)
    done = CliRunner().invoke(commands.app, ["run", str(path), "--sweep", "training.epochs=1,0,many"])
    assert done.exit_code == 2
    assert "training.epochs=0: 1 problem" in done.output
    assert "training.epochs=many: 1 problem" in done.output
    assert "training.epochs=1:" not in done.output
    assert not (tmp_path / "runs").exists()


def test_a_sweep_for_a_cluster_is_a_list_of_manifests_with_a_label_that_they_share(tmp_path: Path) -> None:
    path = tmp_path / "eli5.yaml"
    path.write_text(
        "apiVersion: lmfinetune.dev/v1alpha1\nkind: LMFineTune\n"
        "metadata: {name: eli5, namespace: team-a, labels: {team: a}}\n"
        "spec: {model: {name: distilgpt2}, dataset: {files: ['s3://corpora/a.jsonl']}}\n"
    )
    words = [word for axis in AXES for word in ("--sweep", axis)]
    done = CliRunner().invoke(commands.app, ["sweep", str(path), *words])
    assert done.exit_code == 0, done.output
    documents = [document.content for document in read_text(done.output)]  # as kubectl reads them
    assert len(documents) == 4
    assert all(document_problems(document) == [] for document in documents)
    assert {document["metadata"]["labels"]["lmfinetune.dev/sweep"] for document in documents} == {"eli5"}
    assert documents[0]["metadata"]["labels"]["team"] == "a"
    assert documents[1]["metadata"]["annotations"]["lmfinetune.dev/sweep-values"] == (
        "training.learningRate=1e-4 training.weightDecay=0.1"
    )
    assert [document["spec"]["training"]["learningRate"] for document in documents] == ["1e-4"] * 2 + ["1e-2"] * 2


def test_what_the_command_line_gave_is_told_with_its_option_and_no_line_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "eli5.yaml"
    path.write_text(
        "apiVersion: lmfinetune.dev/v1alpha1\nkind: LMFineTune\nmetadata: {name: eli5}\n"
        "spec: {model: {name: distilgpt2}, dataset: {files: ['s3://corpora/a.jsonl']}, training: {epochs: none}}\n"
    )
    words = ["--set", "model.nam=b", "--name", "Eli 5", "--sweep", "training.seed=1,x"]
    assert CliRunner().invoke(commands.app, ["sweep", str(path), *words]).output.splitlines()[1:] == [
        "          metadata.name         must be a Kubernetes name: lower-case letters, digits, '-' and '.', at most "
        "253 characters (given with --name)",
        "          spec.model.nam        unknown field; did you mean name? (given with --set)",
        "  line 4  spec.training.epochs  must be a whole number, not text",
    ]
    path.write_text(path.read_text().replace(", training: {epochs: none}", ""))
    done = CliRunner().invoke(commands.app, ["sweep", str(path), *words[4:]])
    assert (
        "training.seed=x: 1 problem\n  spec.training.seed  must be a whole number, not text (given with --sweep)"
        in (done.output)
    )


def test_a_path_of_this_machine_is_no_manifest_for_a_cluster(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "apiVersion: lmfinetune.dev/v1alpha1\nkind: LMFineTune\nmetadata: {name: mine}\n"
        "spec: {model: {name: distilgpt2}, dataset: {files: [a.jsonl]}}\n"
    )
    done = CliRunner().invoke(commands.app, ["sweep", str(path), "--sweep", "training.seed=1,2"])
    assert done.exit_code == 2
    assert "must be s3://bucket/key or file:///path" in done.output
