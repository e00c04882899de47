"""How many more pods nodes could take, counted as the scheduler counts."""

from dataclasses import replace
from typing import Any

import pytest

from lmft_api.spec.pod import Toleration, TolerationOperator
from lmft_operator.domain import room, shapes
from lmft_operator.domain.plan import PodRequirements

ALLOCATABLE = {"cpu": "8", "memory": "33554432Ki", "ephemeral-storage": "267847642337"} | {
    "nvidia.com/gpu": "4",
    "pods": "110",
}
"""In the units of a kubelet."""
NEEDS = PodRequirements(
    requests={"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "2"},
    selector={"pool": "train"},
    tolerations=[Toleration(key="gpu", operator=TolerationOperator.EXISTS)],
)


def node(spec: Any = None, ready: str = "True", allocatable: Any = None, **labels: str) -> room.NodeFacts:
    body = {
        "metadata": {"name": "n1", "uid": "u", "labels": {"pool": "train"} | labels},
        "spec": spec or {},
        "status": {
            "allocatable": ALLOCATABLE if allocatable is None else allocatable,
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }
    return room.node_facts(shapes.node(body))


def pod(*requests: Any, inits: Any = (), overhead: Any = None) -> room.Quantities:
    containers = [{"name": f"c{number}", "resources": {"requests": each}} for number, each in enumerate(requests)]
    spec = {"containers": containers, "initContainers": list(inits), "overhead": overhead or {}}
    return room.requested(shapes.occupant({"metadata": {"name": "p"}, "spec": spec}))


@pytest.mark.parametrize(
    ("found", "possible"),
    [
        (node(), True),
        (node(ready="Unknown"), False),
        (node({"unschedulable": True}), False),
        (node(pool="serve"), False),
        (node({"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}), True),
        (node({"taints": [{"key": "spot", "effect": "NoExecute"}]}), False),
        (node({"taints": [{"key": "spot", "effect": "PreferNoSchedule"}]}), True),
        (node(allocatable=ALLOCATABLE | {"nvidia.com/gpu": "1"}), False),
        (node(allocatable={"cpu": "8", "memory": "32Gi", "pods": "110"}), False),
        (node(allocatable={"cpu": ["8"]}), False),
    ],
)
def test_a_node_is_considered_if_it_could_take_a_pod_at_all(found: room.NodeFacts, possible: bool) -> None:
    assert room.eligible(found, NEEDS) is possible


def test_a_cordoned_node_takes_pods_that_tolerate_it() -> None:
    tolerant = replace(
        NEEDS, tolerations=[Toleration(key="node.kubernetes.io/unschedulable", operator=TolerationOperator.EXISTS)]
    )
    assert room.eligible(node({"unschedulable": True}), tolerant)


@pytest.mark.parametrize(
    ("there", "more"),
    [
        ([], 2),
        ([pod({"nvidia.com/gpu": "1"})], 1),
        ([pod({"nvidia.com/gpu": "4"})], 0),
        ([pod({"cpu": "4"}, {"cpu": "500m"})], 1),
        ([pod({"cpu": "1"}, inits=[{"resources": {"requests": {"cpu": "7"}}}])], 0),
        ([pod({"cpu": "1"}, inits=[{"restartPolicy": "Always", "resources": {"requests": {"cpu": "4"}}}])], 1),
        ([pod({"memory": "20Gi"}, overhead={"memory": "9Gi"})], 0),
        ([pod({"cpu": "9"})], 0),
        ([pod({"cpu": "1e3"})], 0),
        ([pod({})] * 109, 1),
        ([room.requested(shapes.occupant({"metadata": {}, shapes.UNREAD: "it is too large"}))], 0),
    ],
)
def test_pods_fit_by_what_the_others_leave_of_each_resource(there: list[room.Quantities], more: int) -> None:
    assert room.more_pods(node(), there, NEEDS) == more
