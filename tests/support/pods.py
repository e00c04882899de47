"""The container's entry in a forked child: a run file in, an exit code and a termination message out."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmft_api.wire.result import decode
from lmft_job.pod.__main__ import main


class Pod:
    """The container's entry in a forked child: torch is imported already."""

    def __init__(
        self, home: Path, run_file: dict[str, Any] | str, patch: Callable[[], None] = lambda: None, **environment: str
    ) -> None:
        (home / "run.json").write_text(run_file if isinstance(run_file, str) else json.dumps(run_file))
        self.message, self._log = home / "termination-log", home / "log"
        self.pid = os.fork()
        if self.pid:
            return
        try:
            log = os.open(self._log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
            os.environ |= environment
            words = [
                "--run-file", home / "run.json", "--termination-log", self.message, "--work", home / "work",
                "--secrets", home / "secrets",
            ]  # fmt: skip
            sys.argv = ["lmft-job", *map(str, words)]
            patch()
            main()
        finally:
            os._exit(99)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def until(self, words: str) -> None:
        """Wait for words in its log."""
        while not (self._log.exists() and words in self.log):
            assert os.waitpid(self.pid, os.WNOHANG) == (0, 0), self.log
            time.sleep(0.01)

    def until_welcome(self) -> None:
        """Wait until the first pod of its attempt has heard of it."""
        self.until("the first pod hears this one")

    def end(self) -> tuple[int, Any]:
        """Its exit code and the decoded termination message."""
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        assert len(self.message.read_bytes()) <= 4096
        return status, decode(self.message.read_text())
