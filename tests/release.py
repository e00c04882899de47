"""Golden files of release 0.1: what its operator and job left in a cluster, in storage and on the wire."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "fixtures" / "release-0.1"
STORAGE = FOLDER / "storage"
END = FOLDER / "end"
RUN_FOLDERS = {"run": "release/team/runs/run-0a1b2c3d", "twin": "release/team/runs/twin-4e5f6071"}
RUNS = tuple(RUN_FOLDERS)
"""``run`` was stopped in its third attempt, after step 16 of 28; ``twin`` is the same and ended undisturbed."""


def manifest(name: str) -> dict[str, Any]:
    """The LMFineTune with its status."""
    body: dict[str, Any] = _read(f"cluster/{name}.json")
    return body


def jobs(name: str) -> list[dict[str, Any]]:
    """Its Jobs, oldest first."""
    found: list[dict[str, Any]] = _read(f"cluster/{name}-jobs.json")
    return found


def pods(name: str) -> list[dict[str, Any]]:
    """Its Pods, oldest first; all have ended."""
    found: list[dict[str, Any]] = _read(f"cluster/{name}-pods.json")
    return found


def run_file(name: str, attempt: int) -> str:
    """What the pod of an attempt finds as /etc/lmft/run.json."""
    annotations = jobs(name)[attempt - 1]["spec"]["template"]["metadata"]["annotations"]
    return str(annotations["lmfinetune.dev/run"])


def termination_messages(name: str) -> list[str]:
    """Of its Pods, oldest first."""
    return [pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"] for pod in pods(name)]


def reports() -> list[dict[str, Any]]:
    """Bodies of the progress that the pods reported, oldest first."""
    found: list[dict[str, Any]] = _read("wire/progress.json")
    return found


def _read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())
