"""``lmft run`` as people run it, for the parts that look at whole runs: a manifest in, a report out."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart.yaml"


def manifest(folder: Path, name: str, **changes: dict[str, Any]) -> Path:
    """The quickstart on a GPU under another name, with some sections of its spec changed; None takes a field away."""
    content = yaml.safe_load(QUICKSTART.read_text())
    content["metadata"]["name"] = name
    for section, values in {"resources": {"gpusPerNode": 1}, **changes}.items():
        kept = {**content["spec"].get(section, {}), **values}
        content["spec"][section] = {key: value for key, value in kept.items() if value is not None}
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(content, indent=1))  # which YAML 1.1 would not quote as it must be
    return path


def start(folder: Path, path: Path, **environment: str) -> "subprocess.Popen[str]":
    """Begin a run; its files lie below the folder, its lines come on stdout."""
    command = [sys.executable, "-m", "lmft_job.cli", "run", str(path), "--output", str(folder / "runs")]
    variables = {**os.environ, "LMFT_CACHE": str(folder / "cache"), **environment}
    return subprocess.Popen(
        command, cwd=folder, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def run(folder: Path, path: Path, **environment: str) -> tuple[int, str]:
    """Run to the end: exit code and everything it printed."""
    process = start(folder, path, **environment)
    text, _ = process.communicate()
    return process.returncode, text


def report(folder: Path, name: str) -> dict[str, Any]:
    """``report.json`` of a finished run."""
    found: dict[str, Any] = json.loads((folder / "runs" / "default" / "runs" / name / "report.json").read_text())
    return found


def say(**line: Any) -> None:
    """One figure."""
    print(json.dumps(line), flush=True)
