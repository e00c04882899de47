"""Runs in queues."""

from typing import Any

from cluster.kueue.manager import QUEUE_LABEL
from cluster.node.node import Json, Run, Team

PREPARED: Json = {"seconds": 0}


def in_queue(name: str, **labels: str) -> Json:
    return {"podTemplate": {"labels": {QUEUE_LABEL: name, **labels}}}


def pair_of_stubs(team: Team, name: str, queue: str, seconds: int, *, labels: Any = (), **resources: Any) -> Run:
    """A run of two pods that hold their places for so long, after a preparation of one."""
    orders = [PREPARED, *[{"seconds": seconds}] * 9]
    return team.stub(name, orders, resources={"nodes": 2, **resources}, **in_queue(queue, **dict(labels)))


def squeezed(team: Team) -> dict[str, Any]:
    """Resources of which the quota has enough for two pods, and the node for one."""
    (node,) = team.node.read("nodes")["items"]
    return {"cpu": f"{int(node['status']['allocatable']['cpu']) * 600}m"}
