"""What the faults that are over at once find to hit, on a node that is made up."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from cluster.chaos.faults import Hands
from cluster.chaos.schedule import Fault, Kind


class MadeUp(Hands):
    """Hands on a node with two containers of runs, which are still listed as running when they are killed."""

    def __init__(self) -> None:
        told = SimpleNamespace(returncode=0)
        node: Any = SimpleNamespace(run=lambda *words, check: told)
        super().__init__(node, "team")

    def _containerd(self, *words: str) -> str:
        if words[:2] == ("tasks", "ls"):
            return "TASK PID STATUS\nc1 11 RUNNING\nc2 12 RUNNING\nc3 13 STOPPED"
        if words[:2] == ("containers", "ls"):
            return "CONTAINER IMAGE\nc1 job\nc2 job\nc3 job"
        if words[:2] == ("containers", "info"):
            name = f"run-{words[2]}"
            return json.dumps(
                {"Labels": {"io.kubernetes.pod.namespace": "team", "io.kubernetes.pod.name": name}},
            )
        return ""


@pytest.mark.parametrize(
    ("kind", "hit"),
    [(Kind.CONTAINER, ["run-c1", "run-c2", None]), (Kind.POD, ["run-a", "run-b", None]), (Kind.OPERATOR, [None] * 3)],
)
def test_what_was_hit_once_is_not_hit_again_while_it_goes(kind: Kind, hit: list[str | None]) -> None:
    hands, fault = MadeUp(), Fault(1, kind, 0.0, 0.0, 0.0)
    assert [hands.begin(fault, ["run-b", "run-a"]) for _ in range(3)] == hit


def test_a_pod_whose_container_was_killed_is_not_deleted_for_a_second_hit() -> None:
    hands = MadeUp()
    assert hands.begin(Fault(1, Kind.CONTAINER, 0.0, 0.0, 0.0), []) == "run-c1"
    assert hands.begin(Fault(2, Kind.POD, 0.0, 0.0, 0.0), ["run-c1"]) is None
