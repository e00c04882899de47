"""A run whose pods do not all start: Kueue takes its places away, or its pods end by themselves."""

from collections.abc import Iterator

import pytest
from cluster.kueue.manager import Kueue
from cluster.kueue.runs import in_queue, pair_of_stubs, squeezed
from cluster.node.node import Team
from cluster.node.release import install
from cluster.node.training import PAIR, reasons, sure

RENDEZVOUS_SECONDS = 25


@pytest.fixture
def hasty(prepared: Kueue) -> Iterator[Kueue]:
    """Kueue, not running; pods do not wait for each other for long."""
    install(prepared.node, job={"rendezvousSeconds": RENDEZVOUS_SECONDS})
    yield prepared
    install(prepared.node)


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


def test_without_it_the_pod_that_has_started_ends_by_itself_and_gives_its_place_back(hasty: Kueue, team: Team) -> None:
    # given a run of which the node has no room for both pods, and that waits in one of them
    with hasty.running():
        hasty.queue(team.namespace, "two", pods=2)
        resources = {"resources": {**PAIR["resources"], **squeezed(team)}}
        large = team.apply("too-large", sure(20, **PAIR | resources, **in_queue("two")))
        large.until("Unschedulable", seconds=600)
        small = pair_of_stubs(team, "small", "two", seconds=5)

        # then that ends when its time is over, the other run gets the places, and neither counts a failure
        small.until("Completed", seconds=900)
        alone = next(attempt for attempt in large.status["attempts"] if attempt.get("reason") == "PeersMissing")
        assert f"not come within {RENDEZVOUS_SECONDS} seconds: 1 of 2" in alone["message"]
        assert f"Pod too-large-{alone['number']}-1-" in alone["message"], "the one that is missing"
        assert large.status.get("failures", 0) == 0
        team.kubectl("delete", "lmft", large.name, "--wait=true", "--timeout=120s")
