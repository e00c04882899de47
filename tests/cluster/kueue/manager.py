"""Kueue itself: its manager as a process beside the API server, its definitions and webhooks from its Go module."""

import base64
import json
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cluster.eventually import eventually
from cluster.node.node import CLUSTER, Json, Node, tool
from cluster.ports import free_port

MODULE = CLUSTER.parent / "modules/kueue"
GROUP = "kueue.x-k8s.io"
QUEUE_LABEL, PRIORITY_LABEL = f"{GROUP}/queue-name", f"{GROUP}/priority-class"
_METRICS_CERTIFICATE = Path("/etc/kueue/metrics/certs")
"""Where the manager insists on one, though it serves no metrics here."""
PLENTY = {"cpu": "1000", "memory": "1Ti", "ephemeral-storage": "10Ti"}


@dataclass
class Kueue:
    """The manager, and queues.

    Args:
        node: the cluster.
        folder: for its configuration, certificate and log.
    """

    node: Node
    folder: Path

    def prepare(self) -> None:
        """Build the manager, and create its definitions; the webhooks come with :meth:`running`."""
        subprocess.run([CLUSTER, "build", "kueue"], check=True)
        subprocess.run(
            [
                "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=kueue",
                "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "tls.key", "-out", "tls.crt",
            ],
            cwd=self.folder, check=True, capture_output=True,
        )  # fmt: skip
        for file in sorted((module() / "config/components/crd/bases").glob("*.yaml")):
            self.node.kubectl("apply", "--server-side", "-f", str(file))
        eventually(self._is_served, "Kueue's definitions", 180)
        self.apply("v1", "Namespace", "kueue-system")

    def _is_served(self) -> bool:
        return self.node.run("kubectl", "get", f"workloads.v1beta2.{GROUP}", "-A", check=False).returncode == 0

    @contextmanager
    def running(self, **settings: Any) -> Iterator[None]:
        """The manager with more settings of its configuration; Jobs are refused while it does not answer."""
        port, health = free_port(), free_port()
        configuration = {
            "apiVersion": f"config.{GROUP}/v1beta2",
            "kind": "Configuration",
            "namespace": "kueue-system",
            "health": {"healthProbeBindAddress": f"127.0.0.1:{health}"},
            "metrics": {"bindAddress": "0"},
            "webhook": {"host": "127.0.0.1", "port": port, "certDir": str(self.folder)},
            "internalCertManagement": {"enable": False},
            "leaderElection": {"leaderElect": False},
            "integrations": {"frameworks": ["batch/job"]},
            **settings,
        }
        file = self.folder / "config.yaml"
        file.write_text(yaml.safe_dump(configuration))
        command = [
            tool("kueue"), "--config", str(file), "--kubeconfig", self.node.kubeconfig,
            "--feature-gates", "VisibilityOnDemand=false",
        ]  # fmt: skip
        _METRICS_CERTIFICATE.mkdir(parents=True, exist_ok=True)
        for name in ("tls.crt", "tls.key"):
            shutil.copy(self.folder / name, _METRICS_CERTIFICATE)
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            eventually(lambda: process.poll() is not None or _listens(port), "Kueue's webhooks", 120)
            assert process.poll() is None, self.log.read_text()[-2000:]
            for body in webhooks(port, (self.folder / "tls.crt").read_bytes()):
                self.node.kubectl("apply", "-f", "-", text=json.dumps(body))
            yield
        finally:
            for kind in ("mutating", "validating"):
                self.node.kubectl("delete", f"{kind}webhookconfiguration", f"kueue-{kind}", check=False)
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            shutil.rmtree(_METRICS_CERTIFICATE.parents[1])

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def apply(self, version: str, kind: str, name: str, namespace: str = "", **body: Any) -> None:
        metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
        text = json.dumps({"apiVersion": version, "kind": kind, "metadata": metadata, **body})
        # Its webhooks may be known to the API server a moment before they answer.
        eventually(
            lambda: self.node.run("kubectl", "apply", "-f", "-", text=text, check=False).returncode == 0,
            f"{kind} {name}",
            30,
        )

    def queue(self, namespace: str, name: str, pods: int) -> None:
        """A queue of a namespace with room for so many pods; a higher priority preempts."""
        version = f"{GROUP}/v1beta2"
        quotas = [{"name": each, "nominalQuota": str(most)} for each, most in (PLENTY | {"pods": pods}).items()]
        group = {
            "coveredResources": [quota["name"] for quota in quotas],
            "flavors": [{"name": "default", "resources": quotas}],
        }
        self.apply(version, "ResourceFlavor", "default", spec={})
        self.apply(version, "ClusterQueue", f"{namespace}-{name}", spec={
            "namespaceSelector": {},
            "resourceGroups": [group],
            "preemption": {"withinClusterQueue": "LowerPriority"},
        })  # fmt: skip
        self.apply(version, "LocalQueue", name, namespace, spec={"clusterQueue": f"{namespace}-{name}"})

    def priority(self, name: str, value: int) -> None:
        self.apply(f"{GROUP}/v1beta2", "WorkloadPriorityClass", name, value=value)

    def workloads(self, namespace: str) -> list[Json]:
        """What Kueue keeps for the Jobs of a namespace."""
        found: list[Json] = self.node.read("-n", namespace, "workloads").get("items", [])
        return found


def module() -> Path:
    """The folder of Kueue's Go module."""
    said = subprocess.run(
        ["go", "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kueue"],
        cwd=MODULE, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return Path(said.stdout.strip())


def webhooks(port: int, certificate: bytes) -> list[Json]:
    """Its webhooks for Jobs and its own objects, answered by a process rather than a Service."""
    found = []
    for body in yaml.safe_load_all((module() / "config/components/webhook/manifests.yaml").read_text()):
        kept = []
        for hook in body["webhooks"]:
            rules = hook["rules"]
            if not all(set(rule["apiGroups"]) <= {"batch", GROUP} for rule in rules):
                continue
            path = hook["clientConfig"].pop("service")["path"]
            bundle = base64.b64encode(certificate).decode()
            hook["clientConfig"] |= {"url": f"https://127.0.0.1:{port}{path}", "caBundle": bundle}
            kept.append(hook)
        kind = "mutating" if body["kind"].startswith("Mutating") else "validating"
        found.append({**body, "metadata": {"name": f"kueue-{kind}"}, "webhooks": kept})
    return found


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
