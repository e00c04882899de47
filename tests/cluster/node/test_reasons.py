"""Failures of the real job, each provoked; the message says what, where, and what to do, and where to read on."""

from collections.abc import Iterator

import pytest
from cluster.node.node import Json, Node, Run, Team
from cluster.node.release import DOCUMENTATION
from cluster.node.training import SECRET, reasons, small, texts, toy

WRONG = {"name": "lmft-wrong"}
# Nothing tames the gradients, and the rate is the highest that a manifest may ask for.
WILD = {"maxSteps": 400, "optimizer": "SGD", "learningRate": "10", "maxGradNorm": "1000000"}
# A step of many passes takes longer than the watchdog's patience.
SLOW = {"gradientAccumulationSteps": 400, "watchdogSeconds": 1}
CASES = {
    "fileless": ("DatasetNotFound", ["nowhere/texts.jsonl", "spec.dataset.files"]),
    "modelless": ("ModelNotFound", ["/nowhere", "spec.model.name"]),
    "bucketless": ("StorageAccessDenied", ["nowhere", "spec.output.uri", "Create it"]),
    "keyless": ("StorageAccessDenied", ["spec.output.uri", "Check the keys in spec.output.credentialsSecretRef"]),
    "diverging": ("Diverged", ["step ", "Lower spec.training.learningRate"]),
    "hanging": ("Hung", ["nothing moved for", "spec.training.watchdogSeconds is 1", "in the log"]),
}


def specs(file: str) -> dict[str, Json]:
    nowhere = file.replace("texts.jsonl", "nowhere")
    return {
        "fileless": small(file, dataset={"files": [f"{nowhere}/texts.jsonl"]}),
        "modelless": small(file) | {"model": {"name": nowhere, "credentialsSecretRef": SECRET}},
        "bucketless": small(file, output={"uri": "s3://nowhere"}),
        "keyless": small(file, output={"credentialsSecretRef": WRONG}),
        "diverging": small(file, training=WILD),
        "hanging": toy(5, training=SLOW, maxRetries=0),
    }


@pytest.fixture(scope="module")
def team(release: Node) -> Iterator[Team]:
    team = release.team()
    yield team
    release.kubectl("delete", "namespace", team.namespace, "--wait=false")


@pytest.fixture(scope="module")
def failing(team: Team, s3) -> dict[str, Run]:
    """All of them at the same time."""
    team.kubectl("create", "secret", "generic", WRONG["name"], "--from-literal=AWS_ACCESS_KEY_ID=test",
                 "--from-literal=AWS_SECRET_ACCESS_KEY=not-the-secret")  # fmt: skip
    return {name: team.apply(name, spec) for name, spec in specs(texts(s3, team)).items()}


@pytest.mark.parametrize("name", CASES)
def test_a_failure_of_the_job_says_what_where_and_what_to_do(failing: dict[str, Run], name: str) -> None:
    run, (reason, words) = failing[name], CASES[name]
    condition = run.until(reason, seconds=240)
    assert condition["status"] == "False"
    assert [word for word in words if word not in condition["message"]] == []
    assert condition["message"].endswith(f"See {DOCUMENTATION}#{reason.lower()}")
    assert "not-the-secret" not in condition["message"]
    assert reasons(run) == [reason]
    assert reason in dict(run.events(reason))
