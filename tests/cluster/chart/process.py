"""The operator as a process beside the API server, with what the chart gives it; no pods are run."""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from cluster.chart.server import ROOT, Server
from cluster.ports import free_port

METRICS_PORT, PROGRESS_PORT, PROBES_PORT = free_port(), free_port(), free_port()


@contextmanager
def operator(server: Server, namespace: str, folder: Path) -> Iterator[str]:
    """The operator as a process here, with the settings, the certificate and the rights that the chart gives it."""
    tls = server.there("secret", "lmft-lmfinetune-progress-tls", namespace)["data"]
    for name, content in tls.items():
        (folder / name).write_bytes(base64.b64decode(content))
    text = server.there("configmap", "lmft-lmfinetune-config", namespace)["data"]["config.yaml"]
    config = yaml.safe_load(text.replace("/etc/lmft-operator-tls", str(folder)))
    ports = {"metrics": METRICS_PORT, "progress": PROGRESS_PORT, "probes": PROBES_PORT}
    for section, port in ports.items():
        config[section] |= {"host": "127.0.0.1", "port": port}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    token = server.run("kubectl", "create", "token", "lmft-lmfinetune", "-n", namespace).strip()
    access = yaml.safe_load(server.kubeconfig.read_text())
    access["users"][0]["user"] = {"token": token}
    (folder / "access.yaml").write_text(yaml.safe_dump(access))
    environment = os.environ | {
        "KUBECONFIG": str(folder / "access.yaml"),
        "LMFT_OPERATOR_CONFIG": str(folder / "config.yaml"),
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("api", "operator")),
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lmft_operator.main"], env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield f"http://127.0.0.1:{METRICS_PORT}"
        finally:
            process.terminate()
            process.wait(15)


def jobs(server: Server, namespace: str) -> list[str]:
    return server.run("kubectl", "get", "jobs", "-n", namespace, "-o", "name").split()


def events(server: Server, namespace: str) -> list[str]:
    selector = "involvedObject.kind=LMFineTune"
    return server.run("kubectl", "get", "events", "-n", namespace, "--field-selector", selector, "-o", "name").split()
