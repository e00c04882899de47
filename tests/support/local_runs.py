"""``lmft run`` in a forked child of the test process, where torch is imported already."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.forked import toy_spec

from lmft_job.cli.run import LocalOptions, run_manifest
from lmft_job.process.signals import Interrupt


def manifest(home: Path, **sections: object) -> Path:
    """A toy run as a file; without output, which is the command's to choose."""
    spec = toy_spec(home, **sections)
    del spec["output"]
    return write_manifest(home, spec)


def write_manifest(home: Path, spec: Any) -> Path:
    """A run as a file."""
    body = {"apiVersion": "lmfinetune.dev/v1alpha1", "kind": "LMFineTune", "metadata": {"name": "toy"}, "spec": spec}
    path = home / "toy.yaml"
    path.write_text(json.dumps(body))  # YAML too, and every text in quotes
    return path


def run_here(
    home: Path, path: Path, patch: Callable[[], None] = lambda: None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a manifest in a folder; ``patch`` is called in the child before anything runs."""
    out, err = home / "stdout", home / "stderr"
    pid = os.fork()
    if not pid:
        code = 99
        try:
            for number, file in ((1, out), (2, err)):
                os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
            sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
            os.chdir(home)
            os.environ["LMFT_CACHE"] = str(home / "cache")
            patch()
            interrupt = Interrupt()
            interrupt.install()
            code = run_manifest(path, LocalOptions(**options), interrupt)
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return subprocess.CompletedProcess([], status, out.read_text(), err.read_text())
