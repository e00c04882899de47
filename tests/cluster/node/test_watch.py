"""``lmft watch`` beside real runs: on a terminal, in a pipe, and when there is nothing good to show."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from itertools import pairwise

from cluster.node.node import ROOT, Run, Team
from cluster.node.training import toy

ERASE_LINE = "\x1b[2K"
COMMAND = [sys.executable, "-m", "lmft_job.cli", "watch"]


def environment(team: Team) -> dict[str, str]:
    path = os.pathsep.join(str(ROOT / part) for part in ("api", "client", "jobimage"))
    return os.environ | {"KUBECONFIG": team.node.kubeconfig, "PYTHONPATH": path, "TERM": "xterm-256color"}


def piped(team: Team, name: str) -> subprocess.CompletedProcess[str]:
    """``lmft watch`` whose output goes into a pipe."""
    command = [*COMMAND, name, "-n", team.namespace]
    return subprocess.run(command, env=environment(team), capture_output=True, text=True, timeout=300, check=False)


class Terminal:
    """``lmft watch`` on a terminal of 40 lines and 120 columns."""

    def __init__(self, run: Run) -> None:
        self._shown = bytearray()
        self._screen, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        command = [*COMMAND, run.name, "-n", run.team.namespace]
        self._process = subprocess.Popen(command, env=environment(run.team), stdin=inside, stdout=inside, stderr=inside)
        os.close(inside)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # what Linux says when the last program has left the terminal
            while part := os.read(self._screen, 65536):
                self._shown += part

    def until_it_ends(self) -> tuple[int, list[str]]:
        """Exit code and every picture that was shown, in order, without colours."""
        code = self._process.wait(300)
        self._reader.join(10)
        os.close(self._screen)
        pictures = self._shown.decode().replace("\r\n", "\n").split(ERASE_LINE)
        return code, [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text) for text in pictures]


def test_a_run_is_followed_on_a_terminal_and_in_a_pipe_until_its_samples(team: Team) -> None:
    # given a run that trains
    run = team.apply("watched", toy(300, evaluation={"everySteps": 50}))

    # when it is watched from both from the first moment
    terminal = Terminal(run)
    pipe = piped(team, run.name)
    code, pictures = terminal.until_it_ends()

    # then the terminal shows phase, bar and curve as they come, and at the end figures, Events and samples
    results = run.status["results"]
    last = pictures[-1]
    assert code == 0, last
    assert any(re.search(r"Training.*\n.*━+ +\d+% +step \d+/300 +loss \d", picture, re.DOTALL) for picture in pictures)
    assert re.search(r"^loss \d+\.\d\d [▁▂▃▄▅▆▇█]{3,} \d+\.\d\d$", last, re.MULTILINE)
    assert re.search(rf"perplexity +{results['baselinePerplexity']}( ± \S+)? +{results['perplexity']}", last)
    assert re.search(r"\d\d:\d\d:\d\d Completed", last)
    for part in ("“The import statement”", "before ▸", "after  ▸", results["modelURI"], results["reportURI"]):
        assert part in last

    # and the pipe has plain lines, each said once, with the same end
    lines = pipe.stdout.splitlines()
    assert (pipe.returncode, pipe.stderr) == (0, "")
    assert "\x1b" not in pipe.stdout
    assert all(line != after for line, after in pairwise(lines))
    assert any("watched · Training · step " in line for line in lines)
    (end,) = (line for line in lines if line.startswith("watched · Completed"))
    assert f"perplexity {results['perplexity']}" in end
    assert any(line.startswith("  after  ▸ ") for line in lines[lines.index(end) :])


def test_a_run_that_failed_is_told_with_its_reason(team: Team) -> None:
    message = '{"reason":"ModelNotFound","message":"there is no such model"}'
    run = team.stub("lost", {"exit": 3, "message": message})

    terminal = Terminal(run)
    pipe = piped(team, run.name)
    code, pictures = terminal.until_it_ends()

    assert (code, pipe.returncode) == (1, 1)
    assert "ModelNotFound" in pictures[-1]
    assert "there is no such model" in pictures[-1]
    assert pipe.stdout.splitlines()[-1].startswith("lost · ModelNotFound · there is no such model")


def test_a_run_that_does_not_exist_or_is_deleted_is_said_so(team: Team) -> None:
    absent = piped(team, "absent")
    run = team.stub("going", {"seconds": 300})
    run.running_pod()
    terminal = Terminal(run)
    team.kubectl("delete", "lmft", run.name)
    code, pictures = terminal.until_it_ends()

    assert (absent.returncode, absent.stdout) == (2, "")
    assert f"there is no LMFineTune absent in namespace {team.namespace}" in absent.stderr
    assert code == 2
    assert "deleted" in pictures[-1] or "there is no LMFineTune" in pictures[-1]
