"""How each fault is done to a node, and undone: the local one, or one that is reached by ``node.shell`` (kind).

Nothing here knows why.
"""

import json
import subprocess

from cluster.chaos.schedule import Fault, Kind
from cluster.eventually import eventually
from cluster.node.node import CLUSTER, FOLDER, Node, tool

LOCAL = {Kind.KUBELET: "kubelet", Kind.S3: "s3", Kind.API: "apiserver"}
OPERATOR_NAMESPACE = "lmft-system"
STATIC_POD = "/etc/kubernetes/manifests/kube-apiserver.yaml"
"""Where kind's kubelet finds the API server."""


class Hands:
    """Does the faults of one schedule to a node; ``namespace`` is that of the runs."""

    def __init__(self, node: Node, namespace: str) -> None:
        self.down: set[Kind] = set()
        self._node, self._namespace = node, namespace
        self._hit: set[str] = set()
        """Pods that were deleted and containers that were killed: they take a moment to go, and go but once."""

    def begin(self, fault: Fault, pods: list[str]) -> str | None:
        """Do it; returns what it hit, or None when there is nothing to hit yet.

        Args:
            fault: what is to be done.
            pods: names of the pods that may be deleted.
        """
        if fault.kind in LOCAL:
            self.down.add(fault.kind)
            self._turn("stop", fault.kind)
            return f"for {fault.seconds:g} s"
        if fault.kind == Kind.POD:
            there = [pod for pod in pods if pod not in self._hit]
            if not there:
                return None
            pod = fault.pick(there)
            told = self._node.run("kubectl", "-n", self._namespace, "delete", "pod", pod, "--wait=false", check=False)
            if told.returncode:
                return None
            self._hit.add(pod)
            return pod
        namespace, name = (self._namespace, "job") if fault.kind == Kind.CONTAINER else (OPERATOR_NAMESPACE, "operator")
        running = {pod: one for pod, one in self._running(namespace, name).items() if one not in self._hit}
        if not running:
            return None
        pod = fault.pick(running)
        if self._containerd("tasks", "kill", "--all", "--signal", "SIGKILL", running[pod]) is None:
            return None
        self._hit |= {pod, running[pod]}
        return pod

    def end(self, fault: Fault) -> None:
        """Undo it, where it lasts; an API server that is started is waited for."""
        self._start(fault.kind)

    def restore(self) -> None:
        """Start whatever is stopped."""
        for kind in tuple(self.down):
            self._start(kind)

    def log(self, pod: str) -> str:
        """What a pod's container has printed so far, from the node's own files: no API server is needed."""
        files = f"/var/log/pods/{self._namespace}_{pod}_*/job/*.log"
        return self._on_node("sh", "-c", f"cat {files}") or ""

    def _start(self, kind: Kind) -> None:
        self._turn("start", kind)
        if kind == Kind.API:
            ready = ("kubectl", "get", "--raw", "/readyz", "--request-timeout=5s")
            eventually(lambda: self._node.run(*ready, check=False).returncode == 0, "an API server that is ready", 90)
        self.down.discard(kind)

    def _turn(self, verb: str, kind: Kind) -> None:
        command: list[str] = [str(CLUSTER), verb, LOCAL[kind]]
        if not self._node.local and kind == Kind.KUBELET:
            command = [*self._node.shell, "systemctl", verb, "kubelet"]
        if not self._node.local and kind == Kind.API:
            here, away = (STATIC_POD, "/etc/kubernetes/kube-apiserver.yaml")
            command = [*self._node.shell, "mv", *((here, away) if verb == "stop" else (away, here))]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def _running(self, namespace: str, name: str) -> dict[str, str]:
        """Containers of this name that run, by their pods, asked of containerd: no API server, no kubelet is needed."""
        listed = self._containerd("tasks", "ls") or ""
        tasks = [line.split()[0] for line in listed.splitlines() if line.endswith("RUNNING")]
        found = {}
        for line in (
            self._containerd("containers", "ls", f'labels."io.kubernetes.container.name"=={name}') or ""
        ).splitlines():
            container = line.split()[0]
            if container in tasks:
                labels = self._labels(container)
                if labels.get("io.kubernetes.pod.namespace") == namespace:
                    found[labels["io.kubernetes.pod.name"]] = container
        return found

    def _labels(self, container: str) -> dict[str, str]:
        told = self._containerd("containers", "info", container)
        labels: dict[str, str] = json.loads(told)["Labels"] if told else {}
        return labels

    def _containerd(self, *words: str) -> str | None:
        """Output of containerd's client."""
        ctr = ("ctr",) if self._node.shell else (tool("ctr"), "--address", str(FOLDER / "containerd.sock"))
        return self._on_node(*ctr, "--namespace", "k8s.io", *words)

    def _on_node(self, *words: str) -> str | None:
        """Output of a command on the node; None when it failed, as for a container that has just ended."""
        told = subprocess.run([*self._node.shell, *words], capture_output=True, text=True, check=False)
        return told.stdout if told.returncode == 0 else None
