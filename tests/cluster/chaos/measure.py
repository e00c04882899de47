"""Runs under faults, beside the same runs left alone: every one must come to the same end."""

import heapq
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import yaml
from cluster.chaos.faults import OPERATOR_NAMESPACE, Hands
from cluster.chaos.history import RunHistory
from cluster.chaos.observer import DISTURBED, Observer, ended, waits_for
from cluster.chaos.schedule import OUTAGES, Fault, Kind, schedule
from cluster.eventually import eventually
from cluster.node.node import Node, Run, Team

Json = dict[str, Any]
Say = Callable[[str], None]
PATIENCE = 900.0
"""How long runs may take that nobody disturbs, seconds."""
END_PATIENCE = 600.0
"""How long after the last fault all runs must have ended, seconds."""
NEWS = 60.0
"""How often it is said what is waited for, seconds."""
FIGURES = ("perplexity", "baselinePerplexity", "evalLoss", "baselineEvalLoss")
"""What a status and a report both tell of a run."""
TARGET_PATIENCE = 300.0
"""How long a fault waits for something that it can hit, and then as long again for something else, seconds.

Only time in which all components are there counts: in an outage nothing starts that could be hit.
"""


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        seed: of the schedule.
        faults: how many.
        runs: how many runs there are at a time.
        durations: seconds of each outage.
        pause: mean time between two faults, seconds.
        steps: of each run.
        every: steps between two checkpoints.
        look: seconds between two samples.
        tasks: the runs take turns; ``CausalLM/2`` is one on two nodes, ``CausalLM/2/FSDP`` one whose model they divide.
        spec: of a run by its task; default: :func:`small`.
    """

    seed: int
    faults: int = 50
    runs: int = 3
    durations: dict[Kind, float] = field(default_factory=lambda: {Kind.KUBELET: 60.0, Kind.S3: 30.0, Kind.API: 120.0})
    pause: float = 20.0
    steps: int = 2400
    every: int = 20
    look: float = 2.0
    tasks: tuple[str, ...] = ("CausalLM", "MaskedLM", "CausalLM/2", "CausalLM/2/FSDP")
    spec: Callable[[str, "Plan"], Json] | None = None


@dataclass
class RunOutcome:
    """How one run ended."""

    name: str
    task: str
    status: Json
    repeated: int
    equal: bool
    violations: list[str]
    jobs: list[Json]


@dataclass
class Outcome:
    """What was measured."""

    plan: Plan
    done: Counter[Kind] = field(default_factory=Counter)
    runs: list[RunOutcome] = field(default_factory=list)
    checkpoints: int = 0
    samples: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def violations(self) -> list[str]:
        """Everything that must not have been, by run; and a measurement that was less than was asked for."""
        found = [f"{run.name}: {problem}" for run in self.runs for problem in run.violations]
        done = sum(self.done.values())
        return found if done >= self.plan.faults else [f"only {done} of {self.plan.faults} faults were done", *found]


def small(task: str, plan: Plan) -> Json:
    """A small run: some 300,000 parameters, a few minutes on a core, a checkpoint every few seconds."""
    causal = task == "CausalLM"
    sizes: Json = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 96, "n_positions": 64}
    if not causal:
        sizes = {
            "model_type": "roberta", "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 96,
            "intermediate_size": 384, "max_position_embeddings": 66,
        }  # fmt: skip
    return {
        "task": task,
        "model": {"fromConfig": sizes, "tokenizer": {"trainVocabSize": 600}},
        "dataset": {"builtin": "PythonDocs", "textField": "answers.text", "testPercent": 5, "blockSize": 64},
        "training": {"maxSteps": plan.steps, "learningRate": "1e-3", "perDeviceBatchSize": 8, "seed": 7},
        "evaluation": {"everySteps": 4 * plan.every},
        "checkpoint": {"everySteps": plan.every, "keep": 2},
        "sample": {"prompts": ["The import statement" if causal else "The <mask> statement"], "maxNewTokens": 8},
    }


def spec_of(task: str, plan: Plan) -> Json:
    """The spec of a run."""
    name, nodes, parallelism = (*task.split("/"), "", "")[:3]
    spec = (plan.spec or small)(name, plan)
    if nodes:
        spec |= {"resources": {"nodes": int(nodes)}, "training": spec["training"] | {"batchSize": 8}}
    if parallelism:
        spec["training"] |= {"parallelism": parallelism}
    # A killed container counts as a failure; so many faults are no run's everyday.
    return spec | {"maxRetries": 100}


def measure(team: Team, plan: Plan, say: Say, calm: Mapping[str, Run] | None = None) -> Outcome:
    """Faults by the plan's schedule over runs in a namespace.

    Args:
        team: the namespace.
        plan: what is to be measured.
        say: told what happens as it happens.
        calm: runs that nobody disturbs, by task, in the same namespace; by default they come first.
    """
    began = time.monotonic()
    outcome = Outcome(plan)
    figures = undisturbed(team, plan, say, calm)
    hands = Hands(team.node, team.namespace)
    with Observer(team, plan.every, margin(team.node), hands.log, plan.look) as observer:
        crowd = Crowd(team, plan, observer)
        crowd.fill()
        eventually(lambda: observer.running() >= plan.runs, "a pod of each run", PATIENCE)
        with restored(hands):
            for fault in disturb(plan, hands, crowd, say):
                outcome.done[fault.kind] += 1
        wait_for_the_end(crowd, say)
    observer.look()
    for name, task in crowd.tasks.items():
        outcome.runs.append(judge(name, task, observer, figures[task]))
    outcome.checkpoints = sum(len(history.verified) for history in observer.histories.values())
    outcome.samples = observer.samples
    outcome.seconds = time.monotonic() - began
    return outcome


def margin(node: Node) -> float:
    """How much longer than its grace period the operator waits for a pod, seconds: the release's."""
    found = node.kubectl("-n", OPERATOR_NAMESPACE, "get", "configmap", "lmfinetune-config", "-o", "json")
    config = yaml.safe_load(json.loads(found)["data"]["config.yaml"])
    return float(config["retries"]["podEndMarginSeconds"])


def undisturbed(team: Team, plan: Plan, say: Say, calm: Mapping[str, Run] | None) -> dict[str, Json]:
    """What comes out of one run of each task that is left alone."""
    runs = calm or {
        task: team.apply(f"calm-{task.lower().replace('/', '-')}", spec_of(task, plan)) for task in plan.tasks
    }
    found = {}
    for task, run in runs.items():
        run.until("Completed", seconds=PATIENCE)
        trained = [attempt for attempt in run.status["attempts"] if attempt["stage"] != "Prepare"]
        assert len(trained) == 1, "the undisturbed run was disturbed"
        observer = Observer(team, plan.every, 0.0, lambda pod: "", plan.look)
        observer.bodies[run.name] = run.body
        found[task] = observer.folder(run.name).outcome()
        say(f"undisturbed {task}: perplexity {found[task]['results']['perplexity']:.4f}")
    return found


@dataclass
class Crowd:
    """The runs that faults come down on: as many at a time as the plan says."""

    team: Team
    plan: Plan
    observer: Observer
    tasks: dict[str, str] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def fill(self) -> None:
        """Start runs in the place of those that have ended."""
        self.check()
        for _ in range(self.plan.runs - len(self.unfinished())):
            number = next(self.numbers)
            task = self.plan.tasks[number % len(self.plan.tasks)]
            name = f"{DISTURBED}{number}"
            self.team.apply(name, spec_of(task, self.plan))
            self.tasks[name] = task

    def unfinished(self) -> list[str]:
        """Runs that have not ended, as far as is known; one that was not seen yet is one of them."""
        bodies = self.observer.bodies
        return [name for name in self.tasks if name not in bodies or not ended(bodies[name])]

    def check(self) -> None:
        """Raise what ended the observer, if anything did."""
        if self.observer.failure is not None:
            raise self.observer.failure


def wait_for_the_end(crowd: Crowd, say: Say) -> None:
    """Until every run has ended, or has had its time; says now and then what those that have not are waiting for."""
    say("no more faults; waiting for the runs to end")
    zero = news = time.monotonic()
    while (waiting := crowd.unfinished()) and (now := time.monotonic()) < zero + END_PATIENCE:
        crowd.check()
        if now >= news + NEWS:
            news = now
            for name in waiting:
                say(f"      {name} is {waits_for(crowd.observer.bodies.get(name, {}))}")
        time.sleep(1)


def disturb(plan: Plan, hands: Hands, crowd: Crowd, say: Say) -> Iterator[Fault]:
    """Do the faults of the schedule, each at its moment, and keep the crowd at its number; yields what was done.

    A fault that finds nothing to hit within its patience becomes one of another kind, so that all of them are done.
    """
    faults = schedule(plan.seed, plan.faults, plan.durations, plan.pause)
    # Moments in seconds, the fault's number to tell equal ones apart, and whether it begins or ends then.
    coming = [(fault.at, fault.number, True) for fault in faults]
    zero, all_there = time.monotonic(), 0.0
    while coming:
        moment, number, begins = heapq.heappop(coming)
        while (now := time.monotonic() - zero) < moment:
            if Kind.API not in hands.down:
                crowd.fill()
            time.sleep(min(1.0, moment - now))
        fault = faults[number - 1]
        if hands.down:
            all_there = now
        if not begins:
            hands.end(fault)
            say(f"      {fault.kind}: over")
            continue
        waited = now - max(fault.at, all_there)
        choices = [fault] if waited < TARGET_PATIENCE else [fault, *fault.instead()]
        targets = crowd.observer.targets()
        done, hit = next(((one, hit) for one in choices if (hit := hands.begin(one, targets))), (None, None))
        if done is not None:
            say(f"{number:2}/{plan.faults} {done.kind}: {hit}")
            if done.kind in OUTAGES:
                # An API server that is told to stop takes a while to, but refuses whoever comes from that moment on.
                heapq.heappush(coming, (now + done.seconds, number, False))
            yield done
        elif waited < 2 * TARGET_PATIENCE:
            # Not at once when there is something to hit: that would always be a pod that has just started.
            heapq.heappush(coming, (now + plan.pause * (0.2 + 0.8 * fault.choice), number, True))
        else:
            say(f"{number:2}/{plan.faults} {fault.kind}: there was nothing to hit")


@contextmanager
def restored(hands: Hands) -> Iterator[None]:
    """Whatever happens, nothing stays stopped."""
    try:
        yield
    finally:
        hands.restore()


def judge(name: str, task: str, observer: Observer, calm: Json) -> RunOutcome:
    """Compare a run with the one that was left alone, and gather what was wrong with it."""
    body, history = observer.bodies.get(name, {}), observer.histories.get(name) or RunHistory(observer.every)
    status, jobs = body.get("status", {}), observer.jobs.get(name, [])
    repeated = history.repeated(status.get("attempts", []))
    problems, equal = history.violations, False
    if not ended(body):
        problems.append(f"it did not end within {END_PATIENCE:g} s of the last fault; it is {waits_for(body)}")
    elif status["phase"] != "Succeeded":
        problems.append(f"it is {waits_for(body)}")
    else:
        found = observer.folder(name).outcome()
        different = [key for key in calm if found[key] != calm[key]]
        equal = not different
        if different:
            problems.append(f"{', '.join(different)} differ from the undisturbed run's")
        problems += told_otherwise(status.get("results", {}), found["results"])
        if not history.there & history.verified:
            problems.append("no verified checkpoint is left")
    return RunOutcome(name, task, status, repeated, equal, problems, jobs)


def told_otherwise(status: Json, report: Json) -> list[str]:
    """Figures of the status that are not those of the report, rounded as the status shows them."""
    problems = []
    for key in FIGURES:
        shown, value = status.get(key), report[key]
        rounded = f"{value:.{len(str(shown).partition('.')[2])}f}"
        if shown != rounded:
            problems.append(f"the status says {key} {shown}, the report {value}")
    return problems
