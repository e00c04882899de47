"""A run whose pods do not all start, where Kueue waits for pods to be ready."""

from cluster.kueue.manager import Kueue
from cluster.kueue.runs import pair_of_stubs, squeezed
from cluster.node.node import Team
from cluster.node.training import reasons


def test_with_wait_for_pods_ready_a_run_that_cannot_start_does_not_hold_the_queue(prepared: Kueue, team: Team) -> None:
    # given a run of which the node has no room for both pods
    ready = {"timeout": "25s", "requeuingStrategy": {"backoffBaseSeconds": 30, "backoffMaxSeconds": 60}}
    with prepared.running(waitForPodsReady=ready):
        prepared.queue(team.namespace, "two", pods=2)
        large = pair_of_stubs(team, "too-large", "two", seconds=600, **squeezed(team))
        large.until("Unschedulable", seconds=300)
        small = pair_of_stubs(team, "small", "two", seconds=5)

        # then Kueue takes its places away, the other run gets them, and neither counts a failure
        small.until("Completed", seconds=900)
        assert "Interrupted" in reasons(large)
        assert large.status.get("failures", 0) == 0
        team.kubectl("delete", "lmft", large.name, "--wait=true", "--timeout=120s")
