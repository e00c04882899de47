"""``lmft`` as a person types it."""

import fcntl
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.local_runs import manifest, run_here
from typer.testing import CliRunner

from lmft_job.cli import commands, run
from lmft_job.cli.__main__ import is_long

ROOT = Path(__file__).parents[3]


def lmft(*words: str, cwd: Path, entry: str = "cli") -> subprocess.CompletedProcess[str]:
    """Run a command."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "LMFT_CACHE": str(cwd / "cache")}
    command = [sys.executable, "-m", f"lmft_job.{entry}", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_validate_lists_every_problem_of_every_document(tmp_path: Path) -> None:
    path = tmp_path / "team.yaml"
    path.write_text(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n---\n"
        "apiVersion: lmfinetune.dev/v1alpha1\nkind: LMFineTune\nmetadata: {name: eli5}\n"
        "spec:\n  model: {name: a/b, fromConfig: {model_type: gpt2}}\n"
        "  dataset: {name: c/d, textFeild: x}\n  training: {learningRate: 2e-5}\n"
    )
    done = lmft("validate", str(path), cwd=tmp_path)
    assert done.returncode == 2
    assert "document 2, LMFineTune/eli5: 3 problems" in done.stdout
    assert "did you mean textField?" in done.stdout
    assert 'must be quoted text such as "2e-5"' in done.stdout
    assert "name and fromConfig are mutually exclusive" in done.stdout


def test_nothing_in_a_manifest_steers_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text('kind: LMFineTune\nmetadata: {name: "a\\e[2Jb"}\nspec: {"\\e]0;title\\a": 1, "a\\nb": 2}\n')
    done = lmft("validate", str(path), cwd=tmp_path)
    assert done.returncode == 2
    assert "LMFineTune/a [2Jb: " in done.stdout
    assert "spec. ]0;title" in done.stdout
    assert "spec.a b" in done.stdout
    assert "\x1b" not in done.stdout


def test_no_library_that_trains_is_imported_to_validate(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import lmft_job.cli.commands;"
        "from lmft_job.cli.validate import report_problems;"
        f"report_problems([Path({str(ROOT / 'examples' / 'quickstart.yaml')!r})]);"
        "print([name for name in ('torch', 'transformers', 'datasets', 'boto3', 'kubernetes') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_examples_are_valid_and_the_demo_is_the_quickstart(tmp_path: Path) -> None:
    examples = sorted((ROOT / "examples").glob("*.yaml"))
    done = lmft("validate", *map(str, examples), cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert len(examples) >= 8
    packaged = ROOT / "jobimage" / "lmft_job" / "demo.yaml"
    assert packaged.read_bytes() == (ROOT / "examples" / "quickstart.yaml").read_bytes()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("run a.yaml", True),
        ("demo", True),
        ("--some-option demo --output run", True),
        ("watch demo", False),
        ("watch run -n demo", False),
        ("validate demo", False),
        ("--version", False),
        ("", False),
    ],
)
def test_only_a_command_that_trains_takes_over_the_signals(line: str, expected: bool) -> None:
    assert is_long(line.split()) is expected


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_output_that_cannot_be_written_is_no_success(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lmft_job.cli", "validate", str(ROOT / "examples/quickstart.yaml")]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "lmft: No space left on device\n")


@pytest.mark.parametrize("name", ["eli5", "lmft/eli5", "LMFineTune/eli5", "lmfinetunes.lmfinetune.dev/eli5"])
def test_a_run_is_watched_by_the_names_that_kubectl_takes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = []

    def follow(name: str, *_: object) -> bool:
        watched.append(name)
        return True

    monkeypatch.setattr("lmft_job.cli.watch.follow.follow", follow)
    assert CliRunner().invoke(commands.app, ["watch", name]).exit_code == 0
    assert watched == ["eli5"]


def test_version_is_told(tmp_path: Path) -> None:
    done = lmft("--version", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.strip()


@pytest.mark.parametrize("text", ["", "a: b\n", "{", "- 1\n"])
def test_what_is_no_run_is_refused_without_a_traceback(text: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    done = lmft("run", str(path), cwd=tmp_path)
    assert done.returncode == 2
    assert "wrong.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_goes_to_its_folder_and_a_finished_one_is_not_overwritten_unasked(tmp_path: Path) -> None:
    home = tmp_path / "with space"
    home.mkdir()
    path = manifest(home)
    done = run_here(home, path, output="my out")
    assert done.returncode == 0, done.stderr
    folder = home / "my out" / "default" / "runs" / "toy"
    assert (folder / "report.json").is_file()
    assert "perplexity" in done.stdout
    assert "\x1b" not in done.stdout
    again = run_here(home, path, output="my out")
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    before = (folder / "report.json").stat().st_mtime_ns
    assert run_here(home, path, output="my out", overwrite=True).returncode == 0
    assert (folder / "report.json").stat().st_mtime_ns > before


def test_another_spec_under_the_name_of_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    unfinished = manifest(tmp_path, training={"learningRate": "10", "maxGradNorm": "1000000"})
    folder = tmp_path / "runs" / "default" / "runs" / "toy"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"name": "toy", "specHash": "another"}))
    done = run_here(tmp_path, unfinished)
    assert done.returncode == 2
    assert "another spec" in done.stderr


def test_ctrl_c_saves_and_says_how_to_go_on_and_the_same_command_goes_on(tmp_path: Path) -> None:
    path = manifest(tmp_path, training={"epochs": 6})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "LMFT_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "lmft_job.cli", "run", str(path)]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "saved" in line:
            break
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "resume with:" in rest
    assert f"{shlex.quote(sys.executable)} -m lmft_job.cli run {path}" in rest
    done = run_here(tmp_path, path)
    assert done.returncode == 0, done.stderr
    assert "resumed from step" in done.stdout


def test_two_runs_of_one_name_do_not_go_on_at_once(tmp_path: Path) -> None:
    path = manifest(tmp_path)
    uri = (tmp_path / "runs").as_uri()
    work = tmp_path / "cache" / "work"
    work.mkdir(parents=True)
    with (work / f"toy-{hashlib.sha256(f'{uri}/toy'.encode()).hexdigest()[:8]}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused = run_here(tmp_path, path)
    assert refused.returncode == 2
    assert "the run toy is already running in another process" in refused.stderr
    assert not (tmp_path / "runs").exists()
    assert run_here(tmp_path, path).returncode == 0


def test_a_cache_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    done = run_here(tmp_path, manifest(tmp_path))
    assert done.returncode == 3
    assert "cannot be used as cache" in done.stderr


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
@pytest.mark.parametrize(
    "note", ["run.json", "before.json", "adjustment.json", "attempts/attempt-0001.json", "report.json"]
)
def test_a_damaged_note_is_told_with_the_remedy(note: str, content: str, tmp_path: Path) -> None:
    path = manifest(tmp_path)
    damaged = tmp_path / "runs" / "default" / "runs" / "toy" / note
    damaged.parent.mkdir(parents=True)
    damaged.write_text(content)
    done = run_here(tmp_path, path)
    assert done.returncode == 2
    assert f"{note} is damaged; remove it and run again" in done.stderr
    assert "Traceback" not in done.stderr


ARGUMENTS = ["run", "my run.yaml", "--overwrite", "--output", "$HOME"]


@pytest.mark.parametrize(
    ("called", "found", "shown"),
    [
        (["/opt/venv/bin/lmft"], "/opt/venv/bin/lmft", "lmft"),
        ([".venv/bin/lmft"], None, ".venv/bin/lmft"),
        ([".venv/bin/lmft"], "/usr/bin/lmft", ".venv/bin/lmft"),
        (["python", "-m", "/lib/lmft_job/cli/__main__.py"], None, "python -m lmft_job.cli"),
    ],
)
def test_the_command_that_goes_on_is_the_one_that_was_typed(called, found, shown, monkeypatch):
    monkeypatch.setattr(sys, "argv", [called[-1], *ARGUMENTS])
    monkeypatch.setattr(sys, "orig_argv", [*called[:1], "-m", "lmft_job.cli", *ARGUMENTS])
    monkeypatch.setattr(shutil, "which", lambda name: found)
    assert commands._again() == f"{shown} run 'my run.yaml' --output '$HOME'"
    # and a process that takes the place of this one, for want of memory, says the same
    monkeypatch.setenv(run.PROGRAM, shlex.join(run.typed_program()))
    monkeypatch.setattr(sys, "argv", ["/lib/lmft_job/cli/__main__.py", *ARGUMENTS])
    assert commands._again() == f"{shown} run 'my run.yaml' --output '$HOME'"


def test_an_old_locale_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LC_ALL", "C"), ("PYTHONUTF8", "0"), ("PYTHONCOERCECLOCALE", "0")):
        monkeypatch.setenv(name, value)
    (tmp_path / "a.yaml").write_text("kind: LMFineTune\nmetadata: {name: ü}\n")
    done = lmft("validate", "a.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "LMFineTune/\\xfc" in done.stdout


def test_what_a_laptop_does_not_heed_is_told(tmp_path: Path) -> None:
    done = run_here(tmp_path, manifest(tmp_path, resumeFrom={"name": "another"}))
    assert "spec.resumeFrom takes effect on a cluster only" in done.stdout
