"""What the parts share: ``lmft run`` as people run it, a manifest in, a report out; JSON lines; the time left."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from goals import judged, left_out, read

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


def judge(row: str, value: float | bool, *, tiny: bool, **figures: Any) -> None:
    """A figure that has a goal."""
    say(**judged(row, value, tiny=tiny, **figures))


def leave_out(row: str, why: str, **figures: Any) -> None:
    """A figure that cannot be had here, and why."""
    say(**left_out(row, why, **figures))


def earlier_lines() -> list[dict[str, Any]]:
    """What other parts of the same measurement have printed."""
    path = os.environ.get("LMFT_BENCH_LINES")
    return read(Path(path)) if path and Path(path).is_file() else []


def seconds_left() -> float:
    """Until bench/gpu.sh cuts this part off; much where it is run by itself."""
    began = os.environ.get("LMFT_BENCH_BEGAN")
    if began is None:
        return 1e6
    return float(os.environ.get("LMFT_BENCH_SECONDS", "90")) - (time.time() - float(began))
