"""Jobs with the label of a run are the operator's to create, where the chart's admission policy is on."""

from pathlib import Path

import pytest
import yaml
from cluster.chart.process import operator
from cluster.chart.server import RUN, Json, Server
from cluster.eventually import eventually

LABEL = "lmfinetune.dev/run-uid"
OUR_WORDS = "create an LMFineTune instead"


def job(name: str, **labels: str) -> Json:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "job", "image": "a"}]}}
    metadata = {"name": name, "labels": {key.replace("__", "/"): value for key, value in labels.items()}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template}}


def create(server: Server, namespace: str, body: Json, *more: str) -> str:
    """Complaint of the API server; empty when the Job was made."""
    try:
        server.run("kubectl", "create", "-n", namespace, "-f", "-", *more, stdin=yaml.safe_dump(body))
    except RuntimeError as problem:
        return str(problem)
    return ""


def test_only_the_operator_makes_jobs_with_the_label_of_a_run(server: Server, tmp_path: Path) -> None:

    namespace = server.namespace()
    server.install(namespace, "--set", "admissionPolicy.enabled=true,defaults.output.uri=s3://models")
    server.established()
    server.run("kubectl", "create", "role", "jobs", "-n", namespace, "--verb=*", "--resource=jobs.batch")
    server.run("kubectl", "create", "rolebinding", "jobs", "-n", namespace, "--role=jobs", "--user=ann")
    forged = {"lmfinetune.dev__run-uid": "0123"}

    # given that it has been taken up: an administrator is refused too
    eventually(lambda: OUR_WORDS in create(server, namespace, job("probe", **forged), "--dry-run=server"), "a policy")

    # then people make Jobs, but none with the label, and cannot give it to theirs
    assert create(server, namespace, job("plain"), "--as=ann") == ""
    for number, value in enumerate(("0123", "", "x" * 63)):
        answer = create(server, namespace, job(f"forged-{number}", **{"lmfinetune.dev__run-uid": value}), "--as=ann")
        assert (OUR_WORDS in answer) == bool(value)
    with pytest.raises(RuntimeError, match=OUR_WORDS):
        server.run("kubectl", "label", "job", "plain", "-n", namespace, f"{LABEL}=0123", "--as=ann")

    # and the operator does its work, whose Jobs others may write to, but not give away
    with operator(server, namespace, tmp_path):
        server.apply(RUN, namespace=namespace)
        eventually(lambda: server.get("job", "eli5-1", namespace), "a Job of the run")
        name = "job/eli5-1"
        server.run("kubectl", "annotate", name, "-n", namespace, "example.com/note=x", "--as=ann")
        for change in (f"{LABEL}=0123", f"{LABEL}-"):
            with pytest.raises(RuntimeError, match=OUR_WORDS):
                server.run("kubectl", "label", name, "-n", namespace, "--overwrite", change, "--as=ann")
