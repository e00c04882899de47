"""Objects that a tenant may write, and a database of the past: the operator and everybody else's runs go on."""

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster.eventually import eventually
from cluster.operator.conftest import SETTINGS
from cluster.operator.plane import JOBS, RUNS, SPEC, Api, Json, Operator, Run
from cluster.ports import free_port
from support.results import DONE

JSON = "application/json"


@pytest.fixture
def own(api: Api, tmp_path: Path) -> Iterator[Operator]:
    """An operator that a test may stop."""
    operator = Operator(tmp_path, api.kubeconfig, free_port(), SETTINGS).start()
    yield operator
    if operator.process is not None and operator.process.poll() is None:
        operator.stop()


def post(api: Api, path: str, body: str) -> int:
    """HTTP status of a POST of a text, which no JSON library of ours could write or read."""
    headers = {"Content-Type": JSON}
    request = urllib.request.Request(api.server + path, body.encode(), headers, method="POST")
    try:
        with urllib.request.urlopen(request, context=api.tls, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as problem:
        return problem.code


def text(api: Api, path: str) -> str:
    """What a GET answers."""
    with urllib.request.urlopen(urllib.request.Request(api.server + path), context=api.tls, timeout=30) as answer:
        return str(answer.read().decode())


def manifest(namespace: str, name: str, config: str) -> str:
    """A run whose fromConfig is this JSON text."""
    model = {"fromConfig": {"model_type": "gpt2", "x": "CONFIG"}, "tokenizer": {"name": "gpt2"}}
    body = {
        "apiVersion": "lmfinetune.dev/v1alpha1",
        "kind": "LMFineTune",
        "metadata": {"name": name, "namespace": namespace},
        "spec": SPEC | {"model": model},
    }
    return json.dumps(body).replace('"CONFIG"', config)


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


def forged(namespace: str, name: str, owner: Json, attempt: str) -> Json:
    """A Job with a run's labels and owner, by somebody else."""
    reference = {"apiVersion": "lmfinetune.dev/v1alpha1", "kind": "LMFineTune", "name": owner["name"]}
    labels = {"lmfinetune.dev/run-uid": owner["uid"], "lmfinetune.dev/attempt": attempt}
    container = {"name": "job", "image": "i", "env": [{"name": "A", "value": "<" * 900_000}]}
    fields = {"manager": "m", "operation": "Update", "apiVersion": "batch/v1", "fieldsType": "FieldsV1"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels,
            "ownerReferences": [reference | {"uid": owner["uid"], "controller": True}],
            "managedFields": [fields | {"time": "9999-12-31T23:59:59Z", "fieldsV1": {"f:spec": {"f:suspend": {}}}}],
        },
        "spec": {"suspend": True, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }


def test_what_tenants_write_hurts_nobody_else_now_and_after_a_restart(own: Operator, api: Api) -> None:
    calm = Run(api, api.namespace()).create()
    calm.runs()
    calm.wait("Training")
    hostile = api.namespace()
    runs = RUNS.format(hostile)
    # given runs too deep and too large, while the operator watches
    for name, config in (
        ("deep-1200", nested(1_200)),
        ("deep-9000", nested(9_000)),
        ("large", json.dumps("x" * 1_200_000)),
        ("long", json.dumps("x" * 140_000)),
    ):
        assert post(api, runs, manifest(hostile, name, config)) == 201
        eventually(lambda at=f"{runs}/{name}": '"reason":"InvalidSpec"' in text(api, at), f"{name} refused")
    assert "more than 200 levels, and is not read" in text(api, f"{runs}/deep-9000")
    assert "at most 131,072 are read (SHA-256 " in text(api, f"{runs}/long")
    # and Jobs that claim to be attempts of another tenant's run
    victim = calm.body()["metadata"]
    for name, attempt in (("forged", "999999999"), ("eli5-2", "2"), ("no-number", "²")):
        api_status = post(api, JOBS.format(hostile), json.dumps(forged(hostile, name, victim, attempt)))
        assert api_status in (201, 422)
    # then all goes on, also for an operator that finds them there
    assert own.ask("/healthz") == 200
    own.restart()
    calm.ends(said=DONE)
    status = calm.wait("Completed")
    assert ([a["number"] for a in status["attempts"]], len(calm.jobs())) == ([1], 1)
    assert own.process is not None
    assert own.process.poll() is None
    assert "Traceback" not in own.log.read_text()
    for name in ("deep-1200", "deep-9000", "large", "long"):
        api.call("DELETE", f"{runs}/{name}")


def test_runs_that_wait_for_each_other_are_told_so(own: Operator, api: Api) -> None:
    namespace = api.namespace()
    first = Run(api, namespace, "first", {"resumeFrom": {"name": "second"}}).create()
    first.wait("Pending")
    second = Run(api, namespace, "second", {"resumeFrom": {"name": "first"}}).create()
    second.wait("InvalidSpec")
    first.wait("InvalidSpec")
    assert "these runs wait for each other: second → first → second" in second.condition()["message"]
    # when one of them is changed
    first.change(resumeFrom=None)
    first.wait("Pending")
    second.wait("Pending")


def test_a_database_restored_to_an_older_snapshot_is_noticed_and_taken_as_it_is(
    own: Operator, api: Api, component: Callable[[str, str], None], plane: Path, tmp_path: Path
) -> None:
    # given a snapshot in which a run trains
    run = Run(api, api.namespace()).create()
    run.runs()
    run.wait("Training")
    snapshot = tmp_path / "snapshot"

    def databases(act: Callable[[], object]) -> None:
        # The controllers too, as the manual for a restore says: they have caches of their own.
        for name in ("manager", "apiserver", "etcd"):
            component("stop", name)
        act()
        for name in ("etcd", "apiserver", "manager"):
            component("start", name)
        eventually(api.reachable, "the API server")

    databases(lambda: shutil.copytree(plane / "etcd", snapshot))
    # when the run ends, others come, and the database is restored
    run.ends(said=DONE)
    run.wait("Completed")
    later = Run(api, run.namespace, "later").create()
    later.runs()
    later.wait("Training")

    def restore() -> None:
        shutil.rmtree(plane / "etcd")
        shutil.copytree(snapshot, plane / "etcd")

    databases(restore)
    # then the operator says so and ends, for its Deployment to start it afresh
    assert own.process is not None
    try:
        own.process.wait(90)
    except subprocess.TimeoutExpired:
        pytest.fail(own.log.read_text()[-3000:])
    assert own.process.returncode == 1
    assert "the API server's database was restored to an older state" in own.log.read_text()
    own.start()
    run.ends(said=DONE)
    status = run.wait("Completed")
    assert [attempt["number"] for attempt in status["attempts"]] == [1]
