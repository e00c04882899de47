"""How manifests are named on a command line: files, standard input, changes, and paths of this machine."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.local_runs import manifest, run_here
from typer.testing import CliRunner

from lmft_job.cli import commands
from lmft_job.cli.manifest import Wishes, read_run

RUN = """\
apiVersion: lmfinetune.dev/v1alpha1
kind: LMFineTune
metadata: {name: mine}
spec:
  model: {name: ./my model, tokenizer: {name: gpt2}}
  dataset: {files: [data/*.jsonl, "../more.jsonl", "s3://corpora/x.jsonl", "/abs/a b.jsonl"]}
  output: {uri: results}
"""


def lmft(*words: str, cwd: Path, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "LMFT_CACHE": str(cwd / "cache"), **environment}
    command = [sys.executable, "-m", "lmft_job.cli", *words]
    return subprocess.run(
        command, cwd=cwd, env=variables, input=stdin, capture_output=True, text=True, timeout=120, check=False
    )


def test_paths_are_relative_to_the_manifest_and_changes_to_the_current_folder(tmp_path: Path, monkeypatch) -> None:
    # given a manifest with paths in another folder
    (tmp_path / "team").mkdir()
    path = tmp_path / "team" / "run.yaml"
    path.write_text(RUN)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    # when it is read, with a change
    found = read_run(path, Wishes.parse(["output.uri=out", "dataset.files[0]=own.jsonl"], "other"))

    # then all of them are addresses of this machine
    assert found is not None
    name, spec = found
    assert name == "other"
    assert spec.dataset.files == [
        f"file://{tmp_path}/here/own.jsonl",
        f"file://{tmp_path}/more.jsonl",
        "s3://corpora/x.jsonl",
        "file:///abs/a b.jsonl",
    ]
    assert spec.model.name == f"file://{tmp_path}/team/my model"
    assert spec.model.tokenizer is not None
    assert spec.model.tokenizer.name == "gpt2"
    assert spec.output is not None
    assert spec.output.uri == f"file://{tmp_path}/here/out"


def test_a_valid_manifest_with_paths_is_noted_to_be_for_this_machine(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN)
    done = lmft("validate", "run.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert done.stdout == (
        'run.yaml, LMFineTune/mine: valid\n  note: spec.dataset.files: "data/*.jsonl" is a path of this machine; '
        "a cluster takes s3:// or file:///folder of a volume\n"
    )


def test_standard_input_is_read_as_a_file_and_named_in_messages(tmp_path: Path) -> None:
    done = lmft("validate", "-", cwd=tmp_path, stdin=RUN.replace("tokenizer", "tokeniser"))
    assert done.returncode == 2
    assert done.stdout == (
        "standard input, LMFineTune/mine: 1 problem\n"
        "  line 5  spec.model.tokeniser  unknown field; did you mean tokenizer?\n"
    )


def test_standard_input_is_there_again_for_whoever_reads_it_next_even_another_process(tmp_path: Path) -> None:
    # given a program that reads its manifest twice, and is then replaced by one that reads it a third time
    script = (
        "import os, sys; from lmft_api.manifest.reader import STDIN, read_documents as read;"
        "names = [next(iter(read(STDIN))).content['metadata']['name'] for _ in range(2)];"
        "print(*names, end=' ', flush=True);"
        "again = 'from lmft_api.manifest.reader import *; print(next(read_documents(STDIN)).content[\"kind\"])';"
        "os.execv(sys.executable, [sys.executable, '-c', again])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    (tmp_path / "run.yaml").write_text(RUN)

    # when it comes by a pipe, and as a file
    piped = subprocess.run([sys.executable, "-c", script], input=RUN, env=environment, capture_output=True, text=True)
    with (tmp_path / "run.yaml").open() as file:
        opened = subprocess.run(
            [sys.executable, "-c", script], stdin=file, env=environment, capture_output=True, text=True
        )

    # then all of them have read it
    assert (piped.stdout, opened.stdout) == ("mine mine LMFineTune\n", "mine mine LMFineTune\n"), piped.stderr


def test_a_run_with_a_relative_file_and_changes(tmp_path: Path) -> None:
    # given a manifest whose data lies beside it
    path = manifest(tmp_path)
    content = json.loads(path.read_text())
    source = Path(content["spec"]["dataset"]["files"][0].removeprefix("file://"))
    shutil.copy(source, tmp_path / f"mine{source.suffix}")
    content["spec"]["dataset"]["files"] = [f"mine{source.suffix}"]
    content["spec"]["dataset"].pop("format")
    path.write_text(json.dumps(content))

    # when it runs under another name with another learning rate
    done = run_here(tmp_path, path, wishes=Wishes.parse(["training.learningRate=1e-4"], "lr4"))

    # then its folder and its report have them
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "runs/default/runs/lr4/report.json").read_text())
    assert report["name"] == "lr4"
    assert report["settings"]["training.learning_rate"] == 1e-4
    assert report["settings"]["dataset.format"] == "json"


@pytest.mark.parametrize("words", [["run", "x.yaml", "--set", "lr"], ["estimate", "x.yaml", "--set", "=1"]])
def test_a_change_that_is_none_is_refused_before_anything_is_read(words: list[str]) -> None:
    done = CliRunner().invoke(commands.app, words)
    assert done.exit_code == 2
    assert "write FIELD=VALUE with a field of the spec, such as training.learningRate=5e-5" in done.output


def test_a_gpus_memory_on_the_command_line_is_judged_where_the_manifest_has_no_gpu(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(
        "apiVersion: lmfinetune.dev/v1alpha1\nkind: LMFineTune\nmetadata: {name: small}\n"
        "spec:\n  model: {fromConfig: {model_type: gpt2, n_layer: 1, n_head: 2, n_embd: 32}, "
        "tokenizer: {trainVocabSize: 300}}\n  dataset: {builtin: PythonDocs}\n"
    )

    fits = CliRunner().invoke(commands.app, ["estimate", str(path), "--gpu-memory", "80Gi"])
    assert fits.exit_code == 0, fits.output
    assert "one GPU" in fits.output
    assert "80.0 GiB (--gpu-memory): fits" in fits.output

    without_unit = CliRunner().invoke(commands.app, ["estimate", str(path), "--gpu-memory", "80"])
    assert without_unit.exit_code == 2
    assert '--gpu-memory: "80" is less than 1Gi, the memory of no GPU; write the unit too' in without_unit.output


def test_problems_are_json_for_scripts(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN.replace("tokenizer", "tokeniser"))
    (tmp_path / "secret.yaml").write_text("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n")
    (tmp_path / "empty.yaml").write_text("")

    done = lmft("validate", "-o", "json", "run.yaml", "secret.yaml", "empty.yaml", cwd=tmp_path)

    assert done.returncode == 2
    run, secret, empty = json.loads(done.stdout)
    problem = {"line": 5, "path": "spec.model.tokeniser", "message": "unknown field; did you mean tokenizer?"}
    assert (run["valid"], run["problems"]) == (False, [problem])
    assert (secret["skipped"], secret["problems"]) == (True, [])
    assert empty["problems"][0]["message"] == "contains no document"


COMMANDS = sorted(entry.name or entry.callback.__name__ for entry in commands.app.registered_commands if entry.callback)


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=str)
def test_every_command_answers_h(command: list[str]) -> None:
    done = CliRunner().invoke(commands.app, [*command, "-h"])
    assert done.exit_code == 0
    assert "Usage" in done.output


def test_the_shell_completes_commands(tmp_path: Path) -> None:
    words = {"COMP_WORDS": "lmft va", "COMP_CWORD": "1", "_LMFT_COMPLETE": "complete_bash"}
    lmft_on_path = Path(sys.executable).with_name("lmft")
    done = subprocess.run([lmft_on_path], env={**os.environ, **words}, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["validate"]
