"""A control plane without a node: API server and controllers are real, the operator is a process, we play kubelet."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import yaml
from cluster.eventually import eventually
from cluster.ports import free_port

from lmft_api.wire.result import Result, encode
from lmft_operator.cluster.access import find

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "tests/cluster/local/cluster"
RUNS = "/apis/lmfinetune.dev/v1alpha1/namespaces/{}/lmfinetunes"
JOBS = "/apis/batch/v1/namespaces/{}/jobs"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
PODS = "/api/v1/namespaces/{}/pods"
SPEC: dict[str, Any] = {
    "model": {"fromConfig": {"model_type": "gpt2", "n_layer": 1}, "tokenizer": {"trainVocabSize": 500}},
    "dataset": {"builtin": "PythonDocs"},
    "output": {"uri": "s3://models/test"},
}
numbers = count(1)
Json = dict[str, Any]


class Api:
    """The API server, as an administrator."""

    def __init__(self, kubeconfig: Path) -> None:
        os.environ["KUBECONFIG"] = str(kubeconfig)
        self.kubeconfig = kubeconfig
        access = find()
        self.server, self.tls = access.server, access.tls

    def call(self, method: str, path: str, body: Any = None, content: str = "application/json") -> Json:
        request = urllib.request.Request(
            self.server + path,
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Content-Type": content},
        )
        with urllib.request.urlopen(request, context=self.tls, timeout=20) as answer:
            found: Json = json.load(answer)
        return found

    def get(self, path: str) -> Json | None:
        """An object, or None."""
        try:
            return self.call("GET", path)
        except urllib.error.HTTPError as problem:
            if problem.code == 404:
                return None
            raise

    def reachable(self) -> bool:
        """Whether the API server answers and is ready."""
        request = urllib.request.Request(self.server + "/readyz")
        try:
            with urllib.request.urlopen(request, context=self.tls, timeout=5):
                return True
        except OSError:
            return False

    def items(self, path: str) -> list[Json]:
        found: list[Json] = self.call("GET", path)["items"]
        return found

    def patch(self, path: str, body: Json) -> Json:
        return self.call("PATCH", path, body, "application/merge-patch+json")

    def token(self, namespace: str, pod: str, uid: str, audience: str) -> str:
        """A token of the default service account, bound to a pod."""
        bound = {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid}
        body = {"spec": {"audiences": [audience], "boundObjectRef": bound}}
        answer = self.call("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token", body)
        return str(answer["status"]["token"])

    def namespace(self) -> str:
        """A fresh namespace that enforces the restricted Pod Security Standard."""
        name = f"operator-{next(numbers)}-{int(time.time()) % 100_000}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.call("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
        # The controller manager makes it; a pod before it would be refused.
        eventually(lambda: self.get(f"/api/v1/namespaces/{name}/serviceaccounts/default"), "the service account")
        return name

    def writes(self, log: Path, user: str, needle: str) -> list[Json]:
        """Lines of the audit log: writes of a client that name something."""
        lines = [json.loads(line) for line in log.read_text().splitlines() if needle in line]
        return [line for line in lines if user in line.get("userAgent", "")]


@dataclass
class Operator:
    """The operator as a process."""

    folder: Path
    kubeconfig: Path
    port: int
    settings: Json
    process: subprocess.Popen[bytes] | None = None
    metrics_port: int = field(default_factory=free_port)
    name: str = "operator"
    host: str = "127.0.0.1"
    """This machine's address; one of IPv6 is listened on as the chart does it: on all there are."""

    def start(self) -> "Operator":
        config = self.folder / "config.yaml"
        config.write_text(yaml.safe_dump(self.settings | self.ports()))
        environment = os.environ | {"LMFT_OPERATOR_CONFIG": str(config), "KUBECONFIG": str(self.kubeconfig)}
        environment |= {"LMFT_POD_NAME": self.name, "LMFT_POD_IP": self.host}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lmft_operator.main"], env=environment, stderr=self.log.open("ab")
        )
        eventually(lambda: self.ask("/readyz") == 200, "a ready operator")
        return self

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def ports(self) -> Json:
        """Where it listens here."""
        here = {"host": "" if ":" in self.host else self.host}
        metrics = self.settings.get("metrics", {}) | here | {"port": self.metrics_port}
        return {"probes": here | {"port": self.port}, "metrics": metrics}

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def ask(self, path: str) -> int:
        """HTTP status of a probe; 0 when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{bracketed(self.host)}:{self.port}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as problem:
            return problem.code
        except OSError:
            return 0

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://{bracketed(self.host)}:{self.metrics_port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def stop(self, number: int = signal.SIGTERM) -> float:
        """End it; seconds it took."""
        assert self.process is not None
        started = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(20)
        return time.monotonic() - started

    def restart(self) -> None:
        """As a crash does it."""
        self.stop(signal.SIGKILL)
        self.start()


@dataclass
class Run:
    """One LMFineTune, and what belongs to it."""

    api: Api
    namespace: str
    name: str = "eli5"
    spec: Json = field(default_factory=dict)

    def create(self) -> "Run":
        self.api.call("POST", RUNS.format(self.namespace), {
            "apiVersion": "lmfinetune.dev/v1alpha1", "kind": "LMFineTune",
            "metadata": {"name": self.name, "namespace": self.namespace}, "spec": SPEC | self.spec,
        })  # fmt: skip
        return self

    @property
    def path(self) -> str:
        return f"{RUNS.format(self.namespace)}/{self.name}"

    def body(self) -> Json:
        return self.api.call("GET", self.path)

    def status(self) -> Json:
        found: Json = self.body().get("status", {})
        return found

    def condition(self) -> Json:
        return next(iter(self.status().get("conditions", [])), {})

    def reason(self) -> str:
        return str(self.condition().get("reason", ""))

    def wait(self, reason: str, seconds: float = 60) -> Json:
        """The status once the condition has this reason."""
        eventually(lambda: self.reason() == reason, f"reason {reason} (is {self.reason()})", seconds)
        return self.status()

    def change(self, **spec: Any) -> None:
        self.api.patch(self.path, {"spec": spec})

    def delete(self) -> None:
        self.api.call("DELETE", self.path)

    def jobs(self) -> list[Json]:
        uid = self.body()["metadata"]["uid"]
        selector = f"?labelSelector=lmfinetune.dev/run-uid={uid}"
        return self.api.items(JOBS.format(self.namespace) + selector)

    def job(self, attempt: int = 1) -> Json:
        """The Job of an attempt, when it is there."""

        def look() -> Json | None:
            return next(
                (j for j in self.jobs() if j["metadata"]["labels"]["lmfinetune.dev/attempt"] == str(attempt)), None
            )

        return eventually(look, f"Job of attempt {attempt}")

    def pod(self, attempt: int = 1) -> Json:
        """The Pod of an attempt, when it is there."""
        job = self.job(attempt)["metadata"]  # by UID: the Pod of an earlier Job of this name may still be there
        selector = f"?labelSelector=batch.kubernetes.io/controller-uid={job['uid']}"
        path = PODS.format(self.namespace) + selector
        return eventually(lambda: next(iter(self.api.items(path)), None), f"pod of {job['name']}")

    def token(self, attempt: int = 1, audience: str = "lmfinetune.dev") -> str:
        """What kubelet would mount into the attempt's pod."""
        pod = self.pod(attempt)["metadata"]
        return self.api.token(self.namespace, pod["name"], pod["uid"], audience)

    # ---- playing kubelet

    def show(self, attempt: int, phase: str, state: Json) -> None:
        container = {
            "name": "job", "image": "i", "imageID": "i", "ready": False, "restartCount": 0, "state": state,
        }  # fmt: skip
        path = f"{PODS.format(self.namespace)}/{self.pod(attempt)['metadata']['name']}/status"
        self.api.patch(path, {"status": {"phase": phase, "containerStatuses": [container]}})

    def runs(self, attempt: int = 1) -> None:
        self.show(attempt, "Running", {"running": {"startedAt": timestamps(0)[1]}})

    def ends(
        self, attempt: int = 1, code: int = 0, said: Result | str = "", why: str = "Error", seconds: int = 0
    ) -> None:
        words = encode(said).decode() if isinstance(said, Result) else said
        start, end = timestamps(seconds)
        ended = {"exitCode": code, "startedAt": start, "finishedAt": end, "reason": why, "message": words}
        self.show(attempt, "Failed" if code else "Succeeded", {"terminated": ended})


def bracketed(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def timestamps(seconds: int) -> tuple[str, str]:
    """So many seconds ago, and now."""
    end = datetime.now(UTC)
    form = "%Y-%m-%dT%H:%M:%SZ"
    return (end - timedelta(seconds=seconds)).strftime(form), end.strftime(form)
