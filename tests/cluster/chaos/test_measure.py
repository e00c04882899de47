"""How faults are done and runs are judged, on a cluster and with a clock that are made up. A real one: `make chaos`."""

import itertools
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from cluster.chaos import measure
from cluster.chaos.history import RunHistory
from cluster.chaos.measure import Crowd, Outcome, Plan, RunOutcome, disturb, judge, told_otherwise, wait_for_the_end
from cluster.chaos.report import table
from cluster.chaos.schedule import OUTAGES, Fault, Kind

Json = dict[str, Any]
PLAN = Plan(seed=7, faults=30, runs=0)
RESULTS = {"perplexity": 35.3969, "baselinePerplexity": 612.004, "evalLoss": 3.566624, "baselineEvalLoss": 6.41674}
SHOWN = {"perplexity": "35.40", "baselinePerplexity": "612.00", "evalLoss": "3.5666", "baselineEvalLoss": "6.4167"}
CALM = {"weights": "w", "losses": "l", "results": RESULTS, "evaluations": []}


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time that goes on when somebody sleeps, and only then."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    clock.sleep = lambda seconds: setattr(clock, "now", clock.now + seconds)
    monkeypatch.setattr(measure, "time", clock)
    return clock


class Hands:
    """Those of a cluster in which only some kinds of fault find something to hit."""

    def __init__(self, *possible: Kind) -> None:
        self.down: set[Kind] = set()
        self.possible = possible

    def begin(self, fault: Fault, pods: list[str]) -> str | None:
        if fault.kind in self.possible and fault.kind in OUTAGES:
            self.down.add(fault.kind)
        return "it" if fault.kind in self.possible else None

    def end(self, fault: Fault) -> None:
        self.down.discard(fault.kind)


def run(phase: str = "Running", reason: str = "Running", message: str = "step 5 of 9", **status: Any) -> Json:
    condition = {"type": "Succeeded", "reason": reason, "message": message}
    return {"status": {"phase": phase, "conditions": [condition], **status}}


def crowd(bodies: dict[str, Json], jobs: list[Json] | None = None) -> Crowd:
    histories = {name: RunHistory(20, there=frozenset({(1, 20)}), verified={(1, 20)}) for name in bodies}
    observer: Any = SimpleNamespace(
        bodies=bodies, jobs=dict.fromkeys(bodies, jobs or []), histories=histories, every=20, failure=None
    )
    observer.targets = list
    observer.folder = lambda name: SimpleNamespace(outcome=lambda: CALM)
    team: Any = None
    return Crowd(team, PLAN, observer, dict.fromkeys(bodies, "CausalLM"))


def done_by(hands: Any, plan: Plan = PLAN) -> Counter[Kind]:
    return Counter(fault.kind for fault in disturb(plan, hands, crowd({}), lambda text: None))


def planned(plan: Plan = PLAN) -> Counter[Kind]:
    return Counter(fault.kind for fault in measure.schedule(plan.seed, plan.faults, plan.durations, plan.pause))


def test_every_fault_is_done_where_there_is_always_something_to_hit() -> None:
    assert done_by(Hands(*Kind)) == planned()


def test_a_fault_waits_for_the_end_of_an_outage_however_long_in_which_there_is_nothing_to_hit() -> None:
    class Dark(Hands):
        def begin(self, fault: Fault, pods: list[str]) -> str | None:
            return None if self.down - {Kind.S3} and fault.kind not in OUTAGES else super().begin(fault, pods)

    plan = replace(PLAN, durations=PLAN.durations | {Kind.API: 3 * measure.TARGET_PATIENCE})
    assert done_by(Dark(*Kind), plan) == planned(plan)


@pytest.mark.parametrize("possible", [(Kind.OPERATOR,), (Kind.CONTAINER,), (Kind.POD, Kind.OPERATOR)])
def test_a_fault_that_finds_nothing_to_hit_becomes_one_of_what_is_there(possible: tuple[Kind, ...]) -> None:
    done = done_by(Hands(*possible, *OUTAGES))
    assert done.total() == PLAN.faults
    assert set(done) == {*possible, *OUTAGES}


def test_faults_that_were_not_done_are_a_violation() -> None:
    # given a cluster in which there is nothing to hit
    outcome = Outcome(PLAN, done_by(Hands(*OUTAGES)))
    # then that ends, and is no success
    assert 0 < outcome.done.total() < PLAN.faults
    assert outcome.violations == [f"only {outcome.done.total()} of 30 faults were done"]
    assert "VIOLATION  only" in table(outcome)


def test_it_is_said_every_minute_what_a_run_waits_for_and_not_for_ever(clock: SimpleNamespace) -> None:
    said: list[str] = []
    bodies = {"disturbed-1": run("Succeeded"), "disturbed-2": run("Pending", "Queued", "waits for its queue")}
    wait_for_the_end(crowd(bodies), said.append)
    assert clock.now == measure.END_PATIENCE
    assert said[1:] == ["      disturbed-2 is Queued: waits for its queue"] * 9


def test_a_run_that_nobody_has_seen_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = crowd({"disturbed-1": run("Succeeded")})
    ours.tasks["disturbed-2"] = "MaskedLM"
    ticks = itertools.count(1)

    def seen(seconds: float) -> None:
        if next(ticks) == 3:
            ours.observer.bodies["disturbed-2"] = run("Succeeded")

    monkeypatch.setattr(measure.time, "sleep", seen)
    wait_for_the_end(ours, lambda text: None)
    assert next(ticks) == 4


@pytest.fixture
def hung() -> RunOutcome:
    job = {"metadata": {"name": "disturbed-1-4"}, "status": {"failed": 1, "ready": 0}}
    ours = crowd({"disturbed-1": run(attempts=[{"number": 1}])}, [job])
    return judge("disturbed-1", "CausalLM", ours.observer, CALM)


def test_a_run_that_does_not_end_is_a_violation_with_its_jobs_status(hung: RunOutcome) -> None:
    assert hung.violations == ["it did not end within 600 s of the last fault; it is Running: step 5 of 9"]
    told = table(Outcome(PLAN, Counter({Kind.POD: 30}), [hung]))
    assert "disturbed-1  Job disturbed-1-4 {'failed': 1, 'ready': 0}" in told
    assert told.endswith("1 violations")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (run("Succeeded", results=SHOWN), []),
        (run("Failed", "Diverged", "NaN"), ["it is Diverged: NaN"]),
        (run("Succeeded", results=SHOWN | {"perplexity": "35.39"}), ["perplexity 35.39, the report 35.3969"]),
    ],
)
def test_a_run_must_succeed_with_the_figures_of_its_report_in_its_status(body: Json, words: list[str]) -> None:
    found = judge("disturbed-1", "CausalLM", crowd({"disturbed-1": body}).observer, CALM).violations
    assert len(found) == len(words)
    assert all(word in problem for word, problem in zip(words, found, strict=True))


def test_a_figure_that_the_status_does_not_have_is_told() -> None:
    assert told_otherwise(SHOWN, RESULTS) == []
    del (shown := dict(SHOWN))["evalLoss"]
    assert told_otherwise(shown, RESULTS) == ["the status says evalLoss None, the report 3.566624"]
