"""Whoever reads a run's output may go, and the terminal may be closed: the run goes on, or saves and ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.local_runs import manifest

TALKER = """
import sys
from lmft_job.process.streams import use_resilient_streams
use_resilient_streams()
from lmft_job.observers.terminal.console import ConsoleObserver
with ConsoleObserver() as console:
    for number in range(20_000):
        console.note(f"line {number}")
print("to whom it may concern", file=sys.stderr)
open("done", "w").write(f"{sys.stdout.fileno()} {sys.stderr.fileno()}")
"""


def talk(home: Path, redirection: str) -> subprocess.CompletedProcess[str]:
    script = home / "talker.py"
    script.write_text(TALKER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = f'"{sys.executable}" "{script}" {redirection}'
    return subprocess.run(
        ["bash", "-c", command], cwd=home, env=environment, capture_output=True, text=True, timeout=120
    )


GONE = {
    "a pipe whose reader has gone": "| head -1; exit ${PIPESTATUS[0]}",
    "both in such a pipe": "2>&1 | head -1; exit ${PIPESTATUS[0]}",
    "a disk that is full": "> /dev/full 2> /dev/full",
    "closed from the start": ">&-",
    "both closed from the start": ">&- 2>&-",
}


@pytest.mark.parametrize("redirection", GONE.values(), ids=GONE)
def test_output_that_goes_nowhere_ends_nothing(redirection: str, tmp_path: Path) -> None:
    done = talk(tmp_path, redirection)
    assert (done.returncode, (tmp_path / "done").read_text()) == (0, "1 2"), done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_what_is_read_comes_whole(tmp_path: Path) -> None:
    done = talk(tmp_path, "")
    assert len(done.stdout.splitlines()) == 20_000
    assert done.stderr == "to whom it may concern\n"


def hears_hangups() -> None:
    """In the child: these tests themselves may run under nohup, which children inherit."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.parametrize("nohup", [False, True])
def test_a_terminal_that_is_closed_saves_the_run_and_nohup_goes_on(nohup: bool, tmp_path: Path) -> None:
    # Steps take milliseconds: the one that is to be stopped must not end by itself before that.
    path = manifest(tmp_path, training={"epochs": 6 if nohup else 500})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "LMFT_CACHE": str(tmp_path / "cache")}
    command = [*(["nohup"] if nohup else []), sys.executable, "-m", "lmft_job.cli", "run", str(path)]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, preexec_fn=hears_hangups,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "saved" in line:
            break
    # when the terminal goes, then nobody reads any more either
    process.stdout.close()
    process.send_signal(signal.SIGHUP)
    process.wait(120)
    folder = tmp_path / "runs/default/runs/toy"
    assert process.returncode == (0 if nohup else 75)
    assert (folder / "report.json").exists() is nohup
    assert list(folder.glob("checkpoints/*/*/MANIFEST.json"))
