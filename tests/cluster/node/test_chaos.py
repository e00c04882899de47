"""Five quick faults by the code of `make chaos`."""

from cluster.chaos.measure import Plan, measure
from cluster.chaos.report import table
from cluster.chaos.schedule import Kind
from cluster.node.node import Run, Team
from cluster.node.training import toy

QUICK = Plan(
    seed=10,
    faults=5,
    runs=2,
    durations={Kind.KUBELET: 5.0, Kind.S3: 3.0, Kind.API: 10.0},
    pause=5.0,
    every=150,
    look=1.0,
    tasks=("CausalLM",),
    spec=lambda task, plan: toy(),
)


def test_five_quick_faults_leave_every_run_as_it_would_have_been(trainers: Team, reference: Run) -> None:
    outcome = measure(trainers, QUICK, print, calm={"CausalLM": reference})
    print(table(outcome))
    assert outcome.violations == []
    assert sum(outcome.done.values()) == 5
