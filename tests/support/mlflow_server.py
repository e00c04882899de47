"""A real MLflow tracking server in a process of its own, with its database in a file."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SERVE = """
import sys
from mlflow.server import app
from werkzeug.serving import run_simple
run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True)
"""
_START_SECONDS = 240


@dataclass(frozen=True)
class MlflowServer:
    """A running server."""

    uri: str
    process: subprocess.Popen[bytes]

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        """What its API answers."""
        request = urllib.request.Request(
            f"{self.uri}/api/2.0/mlflow/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return dict(json.load(response))

    def runs(self, name: str) -> list[dict[str, Any]]:
        """Runs of a name, in all experiments."""
        found = self.post("experiments/search", max_results=100).get("experiments", [])
        ids = [experiment["experiment_id"] for experiment in found]
        runs = self.post("runs/search", experiment_ids=ids).get("runs", [])
        return [run for run in runs if run["info"]["run_name"] == name]

    def history(self, run: dict[str, Any], metric: str) -> list[tuple[int, float]]:
        """Every step and value that a run has of a metric, in the order of the steps."""
        at = f"metrics/get-history?run_id={run['info']['run_id']}&metric_key={metric}&max_results=25000"
        with urllib.request.urlopen(f"{self.uri}/api/2.0/mlflow/{at}", timeout=60) as response:
            return sorted((row["step"], row["value"]) for row in json.load(response).get("metrics", []))

    def freeze(self) -> None:
        """It takes connections, and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It answers again, also what came meanwhile."""
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def running(folder: Path) -> Iterator[MlflowServer]:
    """Start one; it ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/mlflow.db",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": str(folder / "artifacts"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(port)], stdout=output, stderr=output, env={**os.environ, **variables}
        )
    server = MlflowServer(f"http://127.0.0.1:{port}", process)
    try:
        until = time.monotonic() + _START_SECONDS
        while True:
            try:
                server.post("experiments/search", max_results=1)
                break
            except OSError as error:
                if process.poll() is not None or time.monotonic() > until:
                    raise AssertionError(f"the server does not start: {error}\n{log.read_text()[-3000:]}") from error
                time.sleep(0.2)
        yield server
    finally:
        server.thaw()
        process.terminate()
        process.wait()
