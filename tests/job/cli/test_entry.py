"""Nothing in the folder that a process stands in is imported by it, nor by the fresh process that follows it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCKERFILE = Path(__file__).resolve().parents[3] / "Dockerfile"
ENTRYPOINTS = [json.loads(line) for line in re.findall(r"^ENTRYPOINT (.*)$", DOCKERFILE.read_text(), re.MULTILINE)]
AGAIN = (
    "from lmft_job.process.signals import Interrupt, replace_process; "
    "replace_process(Interrupt(), 'lmft_job.cli', ['--version'])"
)
HIJACK = "import os; os.write(1, b'hijacked'); raise SystemExit(9)"


def run_in(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with modules named like those that every entry imports."""
    for name in ("lmft_job", "lmft_operator", "typer", "pydantic", "json", "kopf", "typing_extensions"):
        (tmp_path / f"{name}.py").write_text(HIJACK)
    return tmp_path


def test_the_images_start_without_the_folder_that_they_stand_in() -> None:
    assert [command[:3] for command in ENTRYPOINTS] == [["python", "-P", "-m"]] * 2


@pytest.mark.parametrize("words", [["-P", "-m", "lmft_job.pod", "--help"], ["-P", "-c", AGAIN]], ids=["pod", "again"])
def test_modules_of_the_folder_are_not_imported(words: list[str], hostile: Path) -> None:
    done = run_in(hostile, *words)
    assert done.returncode == 0, done.stderr
    assert "hijacked" not in done.stdout


@pytest.mark.parametrize(("words", "missing"), [("run x.yaml", "torch"), ("demo", "torch"), ("--version", "typer")])
def test_what_is_not_installed_is_told_with_the_command_that_installs_it(
    words: str, missing: str, tmp_path: Path
) -> None:
    script = (
        "import sys, importlib.abc\n"
        "class Without(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {missing!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Without())\n"
        f"sys.argv = ['lmft', *{words.split()!r}]\n"
        "from lmft_job.cli.__main__ import main; main()"
    )
    done = run_in(tmp_path, "-c", script)
    assert done.returncode == 2
    assert done.stderr == (
        f"lmft: the Python package {missing} is not installed; pip install 'lmfinetune[job]' installs all that this "
        "command needs\n"
    )


def test_without_the_option_they_would_be(hostile: Path) -> None:
    assert "hijacked" in run_in(hostile, "-m", "lmft_job.pod", "--help").stdout


def test_a_users_package_is_found_on_the_path_of_the_image() -> None:
    paths = re.findall(r"PYTHONPATH=(\S+)", DOCKERFILE.read_text())
    assert paths[-1].split(":") == ["/app", "/opt/lmft/user"]
