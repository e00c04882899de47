"""``make chaos``: faults at random moments over small runs on a real node; exits with 1 if one did them harm."""

import argparse
import os
import random
import subprocess
import sys
from datetime import datetime

from cluster.chaos.measure import Plan, measure
from cluster.chaos.report import table
from cluster.chaos.schedule import Kind
from cluster.node.node import CLUSTER, given_node, local_node
from cluster.node.release import install, make_bucket, s3_client


def main() -> int:
    """Bring the node up, measure, print the report."""
    plan = _plan()
    given = os.environ.get("LMFT_E2E_KUBECONFIG")
    node = given_node(given) if given else local_node()
    say(f"seed {plan.seed}, {node.images['operator']}, {node.images['job']}")
    make_bucket(s3_client(node))
    install(node)
    team = node.team()
    try:
        outcome = measure(team, plan, say)
        print(table(outcome), flush=True)
        if not outcome.violations:
            node.kubectl("delete", "namespace", team.namespace, "--wait=false")
    finally:
        if node.local and not os.environ.get("LMFT_E2E_KEEP"):
            subprocess.run([CLUSTER, "down"], check=True)
    return 1 if outcome.violations else 0


def say(text: str) -> None:
    """A line with the time."""
    print(f"{datetime.now():%H:%M:%S}  {text}", flush=True)


def _plan() -> Plan:
    words = argparse.ArgumentParser(prog="chaos", description=__doc__)
    words.add_argument("--seed", type=int, default=random.randrange(10_000), help="default: a random one")
    words.add_argument("--faults", type=int, default=Plan.faults)
    words.add_argument("--runs", type=int, default=Plan.runs, help="runs at a time")
    words.add_argument("--pause", type=float, default=Plan.pause, help="mean seconds between two faults")
    words.add_argument("--steps", type=int, default=Plan.steps, help="of each run")
    words.add_argument("--tasks", nargs="+", default=Plan.tasks, help="such as MaskedLM CausalLM/2 CausalLM/2/FSDP")
    words.add_argument("--kubelet-seconds", type=float, default=60.0, help="how long kubelet is stopped")
    words.add_argument("--s3-seconds", type=float, default=30.0, help="how long S3 is stopped")
    words.add_argument("--api-seconds", type=float, default=120.0, help="how long the API server is stopped")
    given = words.parse_args()
    durations = {Kind.KUBELET: given.kubelet_seconds, Kind.S3: given.s3_seconds, Kind.API: given.api_seconds}
    return Plan(given.seed, given.faults, given.runs, durations, given.pause, given.steps, tasks=tuple(given.tasks))


if __name__ == "__main__":
    sys.exit(main())
