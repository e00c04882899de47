"""A folder in which the commands of a page are typed: the examples, made small, and the programs they call."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml
from docs.pages import ROOT, Block, write_files


class Workplace:
    """A copy of what the commands need of the repository, so that they write nowhere else.

    Attributes:
        folder: where the commands are typed.
        programs: what the PATH finds first; also reachable as ``.venv/bin``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "programs"
        self.programs.mkdir()
        shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "charts").symlink_to(ROOT / "charts")
        (folder / ".venv").mkdir()
        (folder / ".venv/bin").symlink_to(self.programs)
        python = os.pathsep.join(str(ROOT / part) for part in ("api", "client", "jobimage"))
        self.program("lmft", f'PYTHONPATH="{python}" exec "{sys.executable}" -m lmft_job.cli "$@"')

    def program(self, name: str, script: str) -> None:
        """Put a program on the PATH."""
        file = self.programs / name
        file.write_text(f"#!/bin/bash\n{script}\n")
        file.chmod(0o755)

    def example(self, name: str, **spec: object) -> None:
        """Change fields of an example's spec; a field set to None goes."""
        file = self.folder / "examples" / name
        body = yaml.safe_load(file.read_text())
        for section, fields in spec.items():
            if isinstance(fields, Mapping):
                merged = body["spec"].get(section, {}) | fields
                body["spec"][section] = {key: value for key, value in merged.items() if value is not None}
            else:
                body["spec"][section] = fields
        file.write_text(json.dumps(body))  # YAML too, and every decimal stays in quotes

    def type(
        self, block: Block, text: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Type commands of a block, with the files that its page shows above it; they stop at the first that fails."""
        write_files(block, self.folder)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.folder,
            env=inherited | {"PATH": f"{self.programs}:{os.environ['PATH']}"} | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
