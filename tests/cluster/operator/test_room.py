"""Room for more pods of a run, counted on a real API server; and without the right to list nodes, none."""

import asyncio
import os
from pathlib import Path

import pytest
import yaml
from cluster.eventually import eventually
from cluster.operator.plane import PODS, Api

from lmft_api.spec.pod import Toleration, TolerationOperator
from lmft_operator.cluster.access import find
from lmft_operator.cluster.client import Cluster
from lmft_operator.cluster.nodes import SpareNodes
from lmft_operator.domain.plan import PodRequirements
from lmft_operator.settings import parse

NODES = "/api/v1/nodes"
# Nobody is a kubelet here: a new node is tainted as not ready, and stays so for a while.
NEEDS = PodRequirements({"cpu": "2"}, {"pool": "room-test"}, [Toleration(operator=TolerationOperator.EXISTS)])


def counted(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))

    async def look() -> int:
        cluster = Cluster(parse("{}").api, find())
        try:
            return await SpareNodes(cluster).room_for(10, NEEDS)
        finally:
            await cluster.close()

    return asyncio.run(look())


def make_node(api: Api, name: str, cpu: str) -> None:
    api.call("POST", NODES, {"metadata": {"name": name, "labels": {"pool": "room-test"}}})
    beat(api, name, cpu)


def beat(api: Api, name: str, cpu: str) -> None:
    amounts = {"cpu": cpu, "memory": "8388608Ki", "pods": "10"}
    ready = [{"type": "Ready", "status": "True"}]
    api.patch(f"{NODES}/{name}/status", {"status": {"allocatable": amounts, "capacity": amounts, "conditions": ready}})


def occupy(api: Api, namespace: str, name: str, node: str, cpu: str) -> None:
    secure = {
        "allowPrivilegeEscalation": False, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}, "securityContext": secure}
    spec = {"nodeName": node, "containers": [container], "tolerations": [{"operator": "Exists"}]}
    api.call("POST", PODS.format(namespace), {"metadata": {"name": name}, "spec": spec})


def test_free_room_is_what_other_pods_leave_of_the_nodes_that_fit(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace, before = api.namespace(), os.environ["KUBECONFIG"]
    for name, cpu in (("room-a", "8"), ("room-b", "3"), ("room-c", "1")):
        make_node(api, name, cpu)
    try:

        def seen() -> int:
            for name, cpu in (("room-a", "8"), ("room-b", "3"), ("room-c", "1")):
                beat(api, name, cpu)
            return counted(api.kubeconfig, monkeypatch)

        eventually(lambda: seen() == 5, "4 on the first node, 1 on the second")

        occupy(api, namespace, "large", "room-a", "5")
        eventually(lambda: seen() == 2, "1 on each of two nodes")

        # an account without the right to list nodes
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token"
        token = api.call("POST", accounts, {"spec": {}})["status"]["token"]
        access = yaml.safe_load(api.kubeconfig.read_text())
        access["users"][0]["user"] = {"token": token}
        (tmp_path / "access.yaml").write_text(yaml.safe_dump(access))
        assert counted(tmp_path / "access.yaml", monkeypatch) == 0
    finally:
        monkeypatch.setenv("KUBECONFIG", before)
        for name in ("room-a", "room-b", "room-c"):
            api.call("DELETE", f"{NODES}/{name}")
