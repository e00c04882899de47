"""Pods of several ranks: the container's entry in forked children, with small scripts in the place of ranks."""

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import SystemRandom
from types import SimpleNamespace
from typing import Any

from support.pods import Pod

from lmft_job.pod.__main__ import main

PRELUDE = """
import json, os, signal, sys, time
from pathlib import Path
rank = int(os.environ["RANK"])
def leave(code, reason="", message="", **more):
    Path(sys.argv[-1]).write_text(json.dumps({"reason": reason, "message": message, **more}))
    sys.stdout.flush()
    os._exit(code)
def mark(name):
    (Path(os.environ["MARKS"]) / f"{name}-{rank}").write_text(str(os.getpid()))
def wait_for(name):
    while not (Path(os.environ["MARKS"]) / name).exists():
        time.sleep(0.01)
def on_stop(do):
    signal.signal(signal.SIGTERM, lambda *_: do())
"""


def free_ports(count: int = 3) -> int:
    """The first of several ports in a row that nobody listens on."""
    while True:
        # Below those that the kernel gives to connections meanwhile.
        first = SystemRandom().randint(12_000, 32_000)
        if all(_is_free(first + more) for more in range(count)):
            return first


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("", port)).close()
    except OSError:
        return False
    return True


def scripted(script: str) -> Callable[[], None]:
    """To call in the pod's process: every rank runs this instead of the package. It finds ``rank`` and helpers."""

    def patch() -> None:
        from lmft_job.pod import launcher

        def command(arguments: Any, rank: int, work: Path) -> list[str]:
            # The package again: what a rank does first is real, as are its arguments.
            real = launcher_command(arguments, rank, work)
            begin = "import os; from lmft_job.distributed.member import become_rank; become_rank(os.environ)\n"
            return [sys.executable, "-P", "-c", begin + PRELUDE + script, *real[4:]]

        launcher_command = launcher.command_of
        launcher.command_of = command  # type: ignore[assignment]

    return patch


class Attempt:
    """The pods of one attempt, all on this machine.

    Args:
        home: folder of the test.
        script: what every rank runs.
        nodes: pods.
        per_node: ranks in a pod.
        only: indexes of the pods that come; all by default.
        run_file: its other keys.
    """

    def __init__(
        self,
        home: Path,
        script: str | None,
        nodes: int = 1,
        per_node: int = 2,
        *,
        only: tuple[int, ...] | None = None,
        run_file: dict[str, Any] | None = None,
        patch: Callable[[], None] = lambda: None,
        **environment: str,
    ) -> None:
        self.marks = home / "marks"
        self.marks.mkdir(exist_ok=True)
        self.port = free_ports()
        spec = {"resources": {"nodes": nodes, "gpusPerNode": per_node if per_node > 1 else 0}}
        file = {"name": "toy", "namespace": "team", "uid": "uid-1", "attempt": 1, "graceSeconds": 8, "spec": spec}
        file |= run_file or {}
        self.began = time.monotonic()
        self.pods: dict[int, Pod] = {}
        for index in range(nodes) if only is None else only:
            folder = home / f"pod-{index}"
            folder.mkdir()
            variables = {"MARKS": str(self.marks), "LMFT_POD_NAME": f"toy-{index}", "LMFT_NODE_NAME": f"node-{index}"}
            if nodes > 1:
                variables |= {
                    "LMFT_NODES": str(nodes), "JOB_COMPLETION_INDEX": str(index), "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(self.port),
                }  # fmt: skip
            patches = [patch, *([scripted(script)] if script is not None else [])]

            def both(patches: list[Callable[[], None]] = patches) -> None:
                for each in patches:
                    each()

            variables |= {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
            self.pods[index] = Pod(folder, json.dumps(file), both, **variables | environment)

    def until(self, *names: str) -> None:
        """Wait for marks of ranks."""
        while not all((self.marks / name).exists() and (self.marks / name).read_text() for name in names):
            time.sleep(0.01)
            ended = [pod.log for pod in self.pods.values() if pod.message.exists()]
            assert not ended, ended
            assert time.monotonic() - self.began < 240

    def pid(self, rank: int, mark: str = "up") -> int:
        """Process of a rank that has left a mark."""
        self.until(f"{mark}-{rank}")
        return int((self.marks / f"{mark}-{rank}").read_text())

    def mark(self, name: str) -> None:
        """Leave a mark that ranks wait for."""
        (self.marks / name).write_text("now")

    def end(self) -> dict[int, tuple[int, Any]]:
        """Exit code and termination message of each pod."""
        return {index: pod.end() for index, pod in self.pods.items()}


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody waited for counts as ended."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


class _ForkedRank:
    """Stands for ``subprocess.Popen``: a rank forked off its pod's first process, which has imported torch already."""

    def __init__(self, command: list[str], env: dict[str, str], process_group: int, patch: Callable[[], None]) -> None:
        self._code: int | None = None
        self.pid = os.fork()
        if self.pid:
            return
        try:
            os.setpgid(0, process_group)
            os.environ.clear()
            os.environ.update(env)
            sys.argv = ["lmft-job", *command[4:]]
            patch()
            main()
        finally:
            os._exit(99)

    def poll(self) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def send_signal(self, number: int) -> None:
        if self._code is None:
            os.kill(self.pid, number)


def forked_ranks(patch: Callable[[], None] = lambda: None) -> Callable[[], None]:
    """To call in the pod's process: ranks are real, but forked; ``patch`` is called in each of them."""

    def install() -> None:
        from lmft_job.pod import ranks

        def start(command: list[str], env: dict[str, str], process_group: int) -> _ForkedRank:
            return _ForkedRank(command, env, process_group, patch)

        ranks.subprocess = SimpleNamespace(Popen=start)  # type: ignore[assignment]

    return install
