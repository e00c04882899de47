"""Statuses that somebody wrote who may write them: the operator decides on the run, and writes a status again.

The effect would be an exception: such a run would be looked at in vain for good.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from attacks.members.objects import HOSTILE, identity, places, put, taken_out
from attacks.registry import Attack
from lmft_api.status.reading import read_status
from lmft_api.wire.run_file import Stage
from lmft_operator.decide.run import decide
from lmft_operator.domain.facts import JobFacts, Observed, PodFacts, run_facts
from lmft_operator.reconcile import read_spec
from lmft_operator.settings import parse
from lmft_operator.status import edit
from lmft_operator.status.throttle import ReceivedReports, overlay

NOW = 1_793_527_200.0
TIME = "2026-11-01T10:00:00Z"
SETTINGS = parse("progress: {url: 'https://operator'}")
SPEC = {
    "model": {"name": "gpt2"},
    "dataset": {"name": "d"},
    "output": {"uri": "s3://models/x"},
    "activeDeadlineSeconds": 100,
    "ttlSecondsAfterFinished": 5,
}
STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "phase": "Training",
    "model": "m",
    "startTime": TIME,
    "completionTime": TIME,
    "interruptions": 1,
    "failures": 1,
    "conditions": [
        {"type": "Succeeded", "status": "Unknown", "reason": "Training", "message": "m", "lastTransitionTime": TIME}
    ],
    "progress": {"percent": 42, "step": 420, "totalSteps": 1000, "loss": "3.7", "lastUpdateTime": TIME},
    "results": {"perplexity": "49.6", "samples": [{"prompt": "p", "before": "b", "after": "a"}], "modelURI": "s3://m"},
    "evaluations": [{"step": 1, "epoch": "1", "evalLoss": "1", "perplexity": "2"}],
    "checkpoint": {"step": 400, "uri": "s3://c/1", "time": TIME},
    "attempts": [
        {"number": 1, "job": "own-1", "stage": "All", "startTime": TIME, "endTime": TIME, "reason": "Interrupted",
         "exitCode": 1, "resumedFromStep": 1, "lostSteps": 1, "adjustments": ["x"], "highestAttempt": 3},
        {"number": 2, "job": "own-2", "stage": "All", "startTime": TIME},
    ],
    "usage": {"gpuSeconds": 1, "seconds": 10},
    "provenance": {"image": "i", "specHash": "h", "seed": 4, "versions": {"a": "b"}},
}  # fmt: skip
JOB = JobFacts("own-2", "j2", "1", "run-1", 2, Stage.ALL, NOW - 100, 0, namespace="team", owner="run-1")
POD = PodFacts("own-2-x", "p2", "1", "run-1", 2, "Running", NOW - 90, started=NOW - 80, owner="j2", namespace="team")
ENDED = replace(POD, phase="Failed", exit_code=1, finished=NOW - 1, log_tail="Traceback")
MOMENTS = {"trains": ((JOB,), (POD,)), "has ended": ((JOB,), (ENDED,))}


def attacks() -> Iterator[Attack]:
    """Every value at every place of a full status, and the place taken out."""
    for path in places(STATUS):
        where = ".".join(map(str, path)) or "status"
        # A status over its bound is not read at all, and the shape of objects is tried with those values.
        small = {what: value for what, value in HOSTILE.items() if "mega" not in what and "100,000" not in what}
        for moment in MOMENTS:
            for what, value in small.items():
                name = f"of a run that {moment}: {where} is {what}"
                yield Attack(name, partial(look, put(STATUS, path, value), moment))
            name = f"of a run that {moment}: {where} is missing"
            yield Attack(name, partial(look, taken_out(STATUS, path), moment))


def look(status: Any, moment: str) -> None:
    """One look at a run, as far as it needs no cluster."""
    metadata = {**identity("team", "own", "run-1"), "generation": 1}
    run = run_facts({"kind": "LMFineTune", "metadata": metadata, "spec": SPEC, "status": status})
    spec, problems = read_spec(run, SETTINGS)
    jobs, pods = MOMENTS[moment]
    seen = Observed(run=run, status=read_status(run.status), now=NOW, jobs=jobs, pods=pods)
    decision = decide(seen, spec, problems, SETTINGS)
    shown = overlay(seen.status, decision.status, ReceivedReports(since=NOW - 1), NOW, SETTINGS, "s3://models/run")
    edit.patch(run.status, seen.status, shown.status)
