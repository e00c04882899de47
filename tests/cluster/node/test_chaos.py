"""Five quick faults by the code of `make chaos`."""

from cluster.chaos.measure import Plan, measure
from cluster.chaos.report import table
from cluster.chaos.schedule import Kind
from cluster.node.node import Team

QUICK = Plan(
    seed=5,
    faults=5,
    runs=2,
    durations={Kind.KUBELET: 5.0, Kind.S3: 3.0, Kind.API: 10.0},
    pause=4.0,
    steps=120,
    every=10,
    look=1.0,
    tasks=("CausalLM",),
)


def test_five_quick_faults_leave_every_run_as_it_would_have_been(team: Team) -> None:
    outcome = measure(team, QUICK, print)
    print(table(outcome))
    assert outcome.violations == []
    assert sum(outcome.done.values()) == 5
