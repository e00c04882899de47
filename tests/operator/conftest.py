"""A world for the pure decisions: a run, its Jobs and Pods, a clock; the status goes round as on a cluster."""

import json
from dataclasses import replace
from typing import Any

import pytest

from lmft_api.manifest.validation import parse_spec
from lmft_api.status import LMFineTuneStatus
from lmft_api.status.reading import read_status
from lmft_api.wire.result import Result, encode
from lmft_api.wire.run_file import Stage
from lmft_operator.decide.draft import Decision, notices
from lmft_operator.decide.run import decide
from lmft_operator.domain.facts import JobFacts, Key, Observed, PodFacts, ResumeSource, RunFacts, WarningEvent
from lmft_operator.domain.plan import Plan
from lmft_operator.jobs import manifest
from lmft_operator.settings import OperatorSettings, parse

START = 1_800_000_000.0
SPEC: dict[str, Any] = {
    "model": {"name": "distilbert/distilgpt2"},
    "dataset": {"name": "dany0407/eli5_category"},
    "output": {"uri": "s3://models/team-a"},
}


class World:
    """Holds what a cluster would; ``step()`` decides and carries out."""

    def __init__(self, **spec: Any) -> None:
        self.now = START
        self.spec: dict[str, Any] = SPEC | spec
        self.settings: OperatorSettings = parse("{}")
        self.status = LMFineTuneStatus()
        self.generation = 1
        self.deleting = False
        self.orphans = False
        self.jobs: dict[str, JobFacts] = {}
        self.pods: dict[str, PodFacts] = {}
        self.warnings: dict[str, WarningEvent] = {}
        self.source: ResumeSource | None = None
        self.room: int | None = None
        self.problems: tuple[str, ...] = ()
        self.created: list[Plan] = []
        self.events: list[tuple[str, str]] = []
        self.run_deleted = False
        self.writes = 0

    def observed(self) -> Observed:
        run = RunFacts(
            Key("team-a", "eli5"), "0123456789ab", "1", self.generation, START, self.deleting,
            json.dumps(self.spec), json.dumps(self.status.to_json()), self.orphans,
        )  # fmt: skip
        jobs, pods = tuple(self.jobs.values()), tuple(self.pods.values())
        return Observed(
            run=run, status=read_status(run.status), now=self.now, jobs=jobs, pods=pods, warnings=self.warnings,
            source=self.source, room=self.room,
        )  # fmt: skip

    def decide(self) -> Decision:
        spec = manifest.with_defaults(parse_spec(self.spec), self.settings)
        return decide(self.observed(), spec, self.problems, self.settings)

    def step(self) -> Decision:
        """Decide and do what was decided, as a cluster without news would show it."""
        decision = self.decide()
        for name in decision.delete_jobs:
            del self.jobs[name]
        if decision.create is not None:
            plan = decision.create
            self.created.append(plan)
            self.jobs[plan.name] = JobFacts(
                plan.name,
                f"job-{plan.attempt}",
                "1",
                "0123456789ab",
                plan.attempt,
                plan.stage,
                self.now,
                plan.gpus,
                nodes=plan.nodes,
            )
        if decision.status.to_json() != self.status.to_json():
            self.writes += 1
            posted = notices(self.status, decision.status, decision.closed)
            self.events += [(notice.reason, notice.message) for notice in posted]
        self.status = decision.status
        self.run_deleted = self.run_deleted or decision.delete_run
        return decision

    def later(self, seconds: float) -> Decision:
        self.now += seconds
        return self.step()

    # ---- what the cluster does

    def pod(self, attempt: int = 1, index: int = 0, **facts: Any) -> PodFacts:
        """Show a pod of an attempt, or change what is shown."""
        name = f"pod-{attempt}" + (f"-{index}" if index else "")
        before = self.pods.get(name) or PodFacts(
            name, name, "1", "0123456789ab", attempt, "Pending", self.now, owner=f"job-{attempt}", index=index
        )
        self.pods[name] = replace(before, **facts)
        return self.pods[name]

    def run_pod(self, attempt: int = 1) -> Decision:
        self.pod(attempt, phase="Running", started=self.now, node="node-7", unschedulable="", waiting_reason="")
        return self.step()

    def end_pod(self, attempt: int = 1, code: int = 0, said: Result | str | None = None, **facts: Any) -> Decision:
        """The container ends with a code and a result, a log's tail, or nothing."""
        words = encode(said).decode() if isinstance(said, Result) else said or ""
        started = self.pods[f"pod-{attempt}"].started if f"pod-{attempt}" in self.pods else self.now
        phase = "Failed" if code else "Succeeded"
        values = {"phase": phase, "started": started or self.now, "finished": self.now} | facts
        self.pod(attempt, exit_code=code, log_tail=words, **values)
        return self.step()

    def close_job(self, attempt: int = 1, **facts: Any) -> None:
        name = next(name for name, job in self.jobs.items() if job.attempt == attempt)
        self.jobs[name] = replace(self.jobs[name], ended=self.now, **facts)

    # ---- what a person sees

    @property
    def reason(self) -> str | None:
        return self.status.reason

    @property
    def message(self) -> str:
        condition = self.status.succeeded
        return condition.message if condition else ""

    @property
    def succeeded(self) -> str | None:
        condition = self.status.succeeded
        return condition.status.value if condition else None

    @property
    def stages(self) -> list[Stage]:
        return [plan.stage for plan in self.created]


@pytest.fixture(name="World")
def world_class() -> type[World]:
    return World
