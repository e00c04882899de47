"""The chart's NetworkPolicy, the operator's and that of docs/security.md, enforced: who reaches what, before and after.

The enforcer is kube-network-policies, the reference implementation of SIG Network. Each connection that must fail is
tried without it too, when it must succeed: a wrong address or a closed port would prove nothing.
"""

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from cluster.eventually import eventually
from cluster.node.node import CLUSTER, Json, Node, Run, Team, tool
from cluster.node.release import install
from docs.pages import ROOT, blocks

SYSTEM = "lmft-system"
INDEX = "batch.kubernetes.io/job-completion-index"
RUN = {"lmfinetune.dev/run-uid": "nobody"}
PORTS = {"probes": 8081, "metrics": 8080, "progress": 8443, "s3": 7070, "api": 6443, "any": 29777}
NODE_IP = "10.245.0.1"
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 4).close()"


class Pods:
    """Pods that do nothing by themselves, and the operators; connections from each of them."""

    def __init__(self, team: Team, monitoring: Team) -> None:
        self.node = team.node
        self._at: dict[str, tuple[str, str]] = {}
        self.address: dict[str, str] = {"node": NODE_IP}
        self._listeners: list[subprocess.Popen[bytes]] = []
        for name, where, labels in (
            ("run", team, RUN), ("stranger", team, {}), ("metadata", team, {}), ("prometheus", monitoring, {}),
        ):  # fmt: skip
            self._start(name, where, labels)

    def _start(self, name: str, team: Team, labels: dict[str, str]) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [
                    {
                        "name": "pod",
                        "image": self.node.images["stub"],
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["python3", "-m", "http.server", "8080"],
                        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    }
                ],
            },
        }
        team.kubectl("apply", "-f", "-", text=json.dumps(body))
        team.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=120s")
        self._at[name] = (team.namespace, name)
        self.address[name] = team.read("pod", name)["status"]["podIP"]

    def find_operators(self) -> None:
        """The two that are Ready, as ``leader`` and ``standby``: the Lease names the first."""

        def ready() -> list[Json] | None:
            found = self.node.read("-n", SYSTEM, "pods", "-l", "app.kubernetes.io/name=lmfinetune")["items"]
            found = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
            conditions = [c for pod in found for c in pod["status"].get("conditions", ()) if c["type"] == "Ready"]
            return found if [c["status"] for c in conditions] == ["True", "True"] else None

        pods = eventually(ready, "two operators are Ready", 180)

        def leader() -> str | None:
            [lease] = self.node.read("-n", SYSTEM, "leases")["items"]
            # An operator that was replaced may hold it for a moment.
            names = [pod["metadata"]["name"] for pod in pods]
            return next((name for name in names if name in lease["spec"].get("holderIdentity", "")), None)

        leading = eventually(leader, "one of them leads", 180)
        for pod in pods:
            role = "leader" if pod["metadata"]["name"] == leading else "standby"
            self._at[role] = (SYSTEM, pod["metadata"]["name"])
            self.address[role] = pod["status"]["podIP"]

    def start_pair(self, team: Team, name: str) -> None:
        """A run on two nodes whose pods listen, as ``<name>-0`` and ``<name>-1``."""
        run = team.stub(name, [{"seconds": 0}, {"seconds": 1800}], resources={"nodes": 2})
        pods = eventually(lambda: len(found := running(run)) == 2 and found, f"both pods of {name} run", 180)
        for pod in pods:
            here = f"{name}-{pod['metadata']['labels'][INDEX]}"
            self._at[here] = (team.namespace, pod["metadata"]["name"])
            self.address[here] = pod["status"]["podIP"]
            listen = (
                "exec",
                "-n",
                *self._at[here],
                "--",
                "python3",
                "-m",
                "http.server",
                str(PORTS["any"]),
                "-d",
                "/tmp",
            )
            command = [tool("kubectl"), "--kubeconfig", self.node.kubeconfig, *listen]
            self._listeners.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            eventually(lambda here=here: self.reaches((here, here, "any")), f"{here} listens", 60)

    def close(self) -> None:
        """Stop listening."""
        for listener in self._listeners:
            listener.kill()
            listener.wait()

    def reaches(self, way: tuple[str, str, str]) -> bool:
        """Whether a TCP connection from a pod to a port of another is accepted within 4 s."""
        source, target, port = way
        namespace, name = self._at[source]
        done = self.node.run(
            "kubectl", "exec", "-n", namespace, name, "--", "python3", "-c", CONNECT, self.address[target],
            str(PORTS[port]), check=False,
        )  # fmt: skip
        assert done.returncode == 0 or "Error" in done.stderr, done.stderr
        assert done.returncode == 0 or "timed out" in done.stderr or "refused" in done.stderr, done.stderr
        return done.returncode == 0

    def reached(self, ways: list[tuple[str, str, str]]) -> dict[tuple[str, str, str], bool]:
        """That of each."""
        with ThreadPoolExecutor(4) as pool:
            return dict(zip(ways, pool.map(self.reaches, ways), strict=True))


def running(run: Run) -> list[Json]:
    """The pods of a run that run, of an attempt on several nodes."""
    pods = [pod for pod in run.pods() if INDEX in pod["metadata"]["labels"]]
    return [pod for pod in pods if pod["status"].get("phase") == "Running" and pod["status"].get("podIP")]


INTO = {
    ("run", "leader", "progress"): True,
    ("run", "leader", "metrics"): False,
    ("run", "leader", "probes"): False,
    ("stranger", "leader", "progress"): False,
    ("stranger", "leader", "metrics"): False,
    ("stranger", "leader", "probes"): False,
    ("prometheus", "leader", "metrics"): True,
    ("prometheus", "leader", "progress"): False,
    ("prometheus", "leader", "probes"): False,
    ("standby", "leader", "progress"): True,
    ("standby", "leader", "probes"): False,
    ("run", "stranger", "metrics"): True,
}
"""With ``metricsFrom`` one namespace. Pods without a policy are not limited."""
OUT = {
    ("leader", "node", "api"): True,
    ("leader", "node", "s3"): False,
    ("leader", "stranger", "metrics"): False,
    ("standby", "leader", "progress"): True,
}
"""With ``egress``."""
METADATA = {
    ("run", "metadata", "metrics"): False,
    ("run", "stranger", "metrics"): True,
    ("run", "node", "s3"): True,
    ("run", "leader", "progress"): True,
    ("stranger", "metadata", "metrics"): True,
}
"""With the policy of docs/security.md, whose excepted address is that of a pod here."""
PEERS = {
    ("pair-0", "pair-1", "any"): True,
    ("pair-1", "pair-0", "any"): True,
    ("rival-0", "rival-1", "any"): True,
    ("rival-0", "pair-0", "any"): False,
    ("run", "pair-0", "any"): False,
    ("stranger", "pair-0", "any"): False,
    ("stranger", "pair-1", "any"): False,
    ("prometheus", "pair-0", "any"): False,
    ("leader", "pair-0", "any"): False,
    ("pair-0", "stranger", "metrics"): True,
    ("pair-0", "leader", "progress"): True,
}
"""With the operator's own policy for each attempt on several nodes."""


def runs_egress(address: str) -> Json:
    """The policy of docs/security.md with one address instead of the metadata service's, which is not for a test."""
    [block] = [
        block for block in blocks("yaml object", pages=(ROOT / "docs/security.md",)) if "lmft-runs" in block.text
    ]
    assert "169.254.169.254/32" in block.text
    policy: Json = yaml.safe_load(block.text.replace("169.254.169.254", address))
    return policy


@pytest.fixture
def monitoring(release: Node) -> Team:
    return release.team(purpose="monitoring")


@pytest.fixture
def pods(release: Node, team: Team, monitoring: Team) -> Iterator[Pods]:
    peers = [{"namespaceSelector": {"matchLabels": {"purpose": "monitoring"}}}]
    policy = {"egress": True, "metricsFrom": peers, "apiServerCIDRs": [f"{NODE_IP}/32"]}
    pods = Pods(team, monitoring)
    install(release, replicas=2, networkPolicy=policy)
    pods.find_operators()
    for name in ("pair", "rival"):
        pods.start_pair(team, name)
    yield pods
    pods.close()
    subprocess.run([CLUSTER, "stop", "policies"], check=True)


def test_who_reaches_what_with_an_enforcer_and_without(pods: Pods, team: Team) -> None:
    # given policies that nobody enforces
    team.kubectl("apply", "-f", "-", text=json.dumps(runs_egress(pods.address["metadata"])))
    wanted = INTO | OUT | METADATA | PEERS
    # then every connection is accepted
    assert [way for way, open_ in pods.reached(list(wanted)).items() if not open_] == []

    # when an enforcer starts
    subprocess.run([CLUSTER, "start", "policies"], check=True)
    eventually(lambda: not pods.reaches(("stranger", "leader", "progress")), "a stranger is kept out", 60)

    # then those alone are that the policies allow
    assert pods.reached(list(wanted)) == wanted
    # and a run's pod reports, and the run completes
    run = team.stub("quiet", {"seconds": 1})
    run.until("Completed", seconds=120)
