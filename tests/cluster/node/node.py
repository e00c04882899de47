"""A cluster with a real kubelet: the one that LMFT_E2E_KUBECONFIG names (kind in CI), else a local one of our own."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from cluster.eventually import eventually
from cluster.node.layer import add_layer
from cluster.node.reader import Reader

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "tests/cluster/local/cluster"
BIN = Path(
    os.environ.get("LMFT_CLUSTER_BIN")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmft-cluster"
)
SOURCES = {
    "operator": ("Dockerfile", "requirements/operator.txt", "api", "operator"),
    "job": ("Dockerfile", "requirements/job.txt", "api", "client", "jobimage"),
    "stub": ("tests/cluster/node/stub",),
    "trainer": ("tests/cluster/node/trainer", "requirements/job.txt"),
}
Json = dict[str, Any]
FOLDER = Path(os.environ.get("LMFT_CLUSTER_DIR", "/tmp/lmft-cluster"))
numbers = count(1)


def tool(name: str) -> str:
    """A program of the local cluster, or of the PATH."""
    own = BIN / name
    return str(own) if own.exists() else shutil.which(name) or name


def containerd() -> tuple[str, ...]:
    """The local node's client of containerd, in the namespace that kubelet uses."""
    return (tool("ctr"), "--address", str(FOLDER / "containerd.sock"), "--namespace", "k8s.io")


@dataclass
class Node:
    """How to reach the cluster, its images and its S3 server."""

    kubeconfig: str
    images: dict[str, str]
    s3_endpoint: str
    s3_key: str = "test"
    s3_secret: str = "testsecret"
    local: bool = True
    shell: tuple[str, ...] = ()
    """What runs a command on the node, where the node is not this machine."""
    namespaces: list[str] = field(default_factory=list)

    @cached_property
    def reader(self) -> Reader:
        """For what is looked at again and again."""
        return Reader(tool("kubectl"), self.kubeconfig)

    def run(self, *command: str, text: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"KUBECONFIG": self.kubeconfig}
        result = subprocess.run(
            [tool(command[0]), *command[1:]], input=text, env=environment, capture_output=True, text=True, check=False
        )
        if check and result.returncode:
            raise AssertionError(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
        return result

    def kubectl(self, *arguments: str, text: str | None = None, check: bool = True) -> str:
        return self.run("kubectl", *arguments, text=text, check=check).stdout

    def read(self, *arguments: str) -> Json:
        """An object or a list as JSON; empty when it does not exist."""
        found = self.kubectl("get", "--ignore-not-found", "-o", "json", *arguments)
        parsed: Json = json.loads(found) if found.strip() else {}
        return parsed

    @property
    def name(self) -> str:
        """The only node's."""
        return self.kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")

    def kubelet(self, verb: str) -> None:
        """``stop`` or ``start`` kubelet; what it started goes on, as on a node that has lost its network."""
        command = [CLUSTER, verb, "kubelet"] if self.local else [*self.shell, "systemctl", verb, "kubelet"]
        subprocess.run(command, check=True)

    def storage(self, verb: str) -> None:
        """``stop`` or ``start`` the S3 server."""
        subprocess.run([CLUSTER, verb, "s3"], check=True)

    def task(self, *verb: str, pod: Json, check: bool = True) -> None:
        """Do something to a pod's container behind kubelet's back: ``kill --signal KILL``, ``pause``, ``resume``."""
        container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        ctr = containerd() if self.local else (*self.shell, "ctr", "--namespace", "k8s.io")
        subprocess.run([*ctr, "tasks", *verb, container], check=check, capture_output=True)

    def team(self, **labels: str) -> "Team":
        """A new namespace in which restricted pods alone are admitted, with the Secret of the storage."""
        name = f"team-{os.getpid()}-{next(numbers)}"
        marks = {"pod-security.kubernetes.io/enforce": "restricted"} | labels
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": marks}}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "lmft-s3", "namespace": name},
            "stringData": {"AWS_ACCESS_KEY_ID": self.s3_key, "AWS_SECRET_ACCESS_KEY": self.s3_secret},
        }
        for body in (namespace, secret):
            self.kubectl("apply", "-f", "-", text=json.dumps(body))
        self.namespaces.append(name)
        return Team(self, name)


@dataclass
class Team:
    """A namespace, and the runs in it."""

    node: Node
    namespace: str

    def kubectl(self, *arguments: str, text: str | None = None, check: bool = True) -> str:
        return self.node.kubectl("-n", self.namespace, *arguments, text=text, check=check)

    def read(self, *arguments: str) -> Json:
        return self.node.read("-n", self.namespace, *arguments)

    def stub(self, name: str, orders: Any = None, **spec: Any) -> "Run":
        """A run of the stub image that does what ``orders`` say."""
        template = spec.pop("podTemplate", {})
        body = {
            "model": {"name": "stub/model"},
            "dataset": {"builtin": "PythonDocs"},
            "sample": {"prompts": [json.dumps(orders or {})]},
            "podTemplate": {"image": self.node.images["stub"], **template},
            **spec,
        }
        return self.apply(name, body)

    def apply(self, name: str, spec: Json) -> "Run":
        body = {
            "apiVersion": "lmfinetune.dev/v1alpha1",
            "kind": "LMFineTune",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        }
        self.kubectl("apply", "-f", "-", text=json.dumps(body))
        return Run(self, name)


@dataclass
class Run:
    """An LMFineTune."""

    team: Team
    name: str

    @property
    def body(self) -> Json:
        return self.team.node.reader.get("lmft", self.team.namespace, self.name)

    @property
    def status(self) -> Json:
        found: Json = self.body.get("status") or {}
        return found

    @property
    def condition(self) -> Json:
        return next((c for c in self.status.get("conditions", []) if c["type"] == "Succeeded"), {})

    def until(self, *reasons: str, seconds: float = 60) -> Json:
        """The condition, once it has one of these reasons."""

        def look() -> Json | None:
            found = self.condition
            return found if found.get("reason") in reasons else None

        try:
            return eventually(look, f"{self.name} becomes {' or '.join(reasons)}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {json.dumps(self.status, indent=1)}") from None

    def pods(self) -> list[Json]:
        return self._children("pods")

    def jobs(self) -> list[Json]:
        return self._children("jobs")

    def _children(self, kind: str) -> list[Json]:
        uid = self.body["metadata"]["uid"]
        return self.team.node.reader.list(kind, self.team.namespace, f"lmfinetune.dev/run-uid={uid}")

    def running_pod(self, attempt: int = 1, seconds: float = 60) -> str:
        """Name of the attempt's pod once its container runs."""

        def look() -> str | None:
            for pod in self.pods():
                labels = pod["metadata"]["labels"]
                states = [s["state"] for s in pod.get("status", {}).get("containerStatuses", [])]
                if labels.get("lmfinetune.dev/attempt") == str(attempt) and any("running" in s for s in states):
                    return str(pod["metadata"]["name"])
            return None

        return eventually(look, f"the pod of attempt {attempt} of {self.name} runs", seconds)

    def events(self, reason: str) -> list[tuple[str, str]]:
        """Reason and message of the Events about the run, oldest first, once one has that reason.

        The operator posts an Event right after the status that it goes with.
        """
        selector = f"involvedObject.kind=LMFineTune,involvedObject.name={self.name}"

        def look() -> list[tuple[str, str]] | None:
            items = self.team.read("events", "--field-selector", selector).get("items", [])
            items = sorted(items, key=lambda e: e["metadata"]["creationTimestamp"])
            found = [(event["reason"], event["message"]) for event in items]
            return found if reason in dict(found) else None

        return eventually(look, f"an Event {reason} about {self.name}", 10)


def content_tag(paths: Iterable[str]) -> str:
    """A tag that changes with the content of files and folders."""
    digest = hashlib.sha256()
    for path in paths:
        files = [ROOT / path] if (ROOT / path).is_file() else sorted((ROOT / path).rglob("*"))
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def local_node(targets: Iterable[str] = tuple(SOURCES)) -> Node:
    """Start the local cluster, unless it runs, and give it the images; those of other targets have a name only.

    Raises CalledProcessError, with what was said on stderr, when it does not come up.
    """
    subprocess.run([CLUSTER, "up"], stderr=subprocess.PIPE, text=True, check=True)
    images: dict[str, str] = {}
    ctr = containerd()
    known = subprocess.run([*ctr, "images", "ls", "-q"], capture_output=True, text=True, check=True).stdout.split()
    for target, sources in SOURCES.items():
        tag = images[target] = f"localhost/lmft-{target}:{content_tag(sources)}"
        if tag in known or target not in targets:
            continue
        if target == "trainer":
            settings = {"Entrypoint": ["torchrun", "/train.py"], "Env": ["DISABLE_KUBEFLOW_INTEGRATION=FALSE"]}
            add_layer(ctr, images["job"], tag, {"/train.py": ROOT / sources[0] / "train.py"}, settings)
            continue
        context = ROOT / "tests/cluster/node/stub" if target == "stub" else ROOT
        subprocess.run([CLUSTER, "image", target, tag, context], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([CLUSTER, "load", tag], check=True)
    return Node(str(FOLDER / "admin.conf"), images, "http://10.245.0.1:7070")


def given_node(kubeconfig: str) -> Node:
    """A cluster that somebody else brought up, with the images loaded and an S3 server that pods reach.

    The variables are those that .github/workflows/ci.yaml sets for kind.
    """
    images = {target: os.environ[f"LMFT_E2E_{target.upper()}_IMAGE"] for target in SOURCES}
    return Node(
        kubeconfig,
        images,
        os.environ["LMFT_E2E_S3_ENDPOINT"],
        os.environ["LMFT_E2E_S3_KEY"],
        os.environ["LMFT_E2E_S3_SECRET"],
        local=False,
        shell=tuple(os.environ["LMFT_E2E_NODE_SHELL"].split()),
    )
