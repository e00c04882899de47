"""Clusters with other hands in them: injected containers, edits at the wrong moment, finalizers, a newer release.

Admission, garbage collection and the Job controller are real; kubelet is played.
"""

import json
import time
import urllib.error
from collections.abc import Callable
from typing import Any

import pytest
from cluster.eventually import eventually
from cluster.operator.plane import JOBS, PODS, Api, Run, timestamps
from support.results import DONE

from lmft_api.wire.result import encode

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
MARGIN = {"retries": {"initialSeconds": 1, "podEndMarginSeconds": 2}}
FINALIZER = "example.com/audit"


def show(run: Run, attempt: int, phase: str, **states: dict[str, Any]) -> None:
    """As kubelet does it: the states sorted by the containers' names."""
    statuses = [
        {"name": name, "image": "i", "imageID": "i", "ready": False, "restartCount": 0, "state": states[name]}
        for name in sorted(states)
    ]
    path = f"{PODS.format(run.namespace)}/{run.pod(attempt)['metadata']['name']}/status"
    run.api.patch(path, {"status": {"phase": phase, "containerStatuses": statuses}})


def running() -> dict[str, Any]:
    return {"running": {"startedAt": timestamps(0)[1]}}


def ended(code: int, message: str = "") -> dict[str, Any]:
    start, end = timestamps(5)
    return {"terminated": {"exitCode": code, "startedAt": start, "finishedAt": end, "message": message}}


def mutate_pods(api: Api, namespace: str, patches: str, at_work: Callable[[dict[str, Any]], bool]) -> None:
    """Have admission change every pod of a namespace, by JSON patches in CEL; returns when it does."""
    # Whoever injects containers has seen to it that the namespace takes them.
    allowed = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}
    api.patch(f"/api/v1/namespaces/{namespace}", allowed)
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    here = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    spec = {
        "matchConstraints": {"resourceRules": [rule], "namespaceSelector": here}, "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patches}}],
    }  # fmt: skip
    api.call("POST", f"{ADMISSION}/mutatingadmissionpolicies", {"metadata": {"name": namespace}, "spec": spec})
    binding = {"metadata": {"name": namespace}, "spec": {"policyName": namespace}}
    api.call("POST", f"{ADMISSION}/mutatingadmissionpolicybindings", binding)
    probe = {"metadata": {"name": "probe"}, "spec": {"containers": [{"name": "job", "image": "i"}]}}
    eventually(lambda: at_work(api.call("POST", f"{PODS.format(namespace)}?dryRun=All", probe)), "the policy in effect")


@pytest.fixture(scope="module")
def injected(api: Api) -> str:
    """A namespace into whose pods admission puts a container on either side of ours, by name and by place."""
    namespace = api.namespace()
    patches = ", ".join(
        f'JSONPatch{{op: "add", path: "/spec/containers/{place}", value: {{"name": "{name}", "image": "sidecar"}}}}'
        for name, place in (("a-mesh", "0"), ("z-logs", "-"))
    )
    names = ["a-mesh", "job", "z-logs"]
    mutate_pods(api, namespace, f"[{patches}]", lambda pod: [c["name"] for c in pod["spec"]["containers"]] == names)
    return namespace


@pytest.fixture
def margin(operator):
    """The operator with a short margin for pods to end."""
    before = operator.settings
    operator.settings = before | MARGIN
    operator.stop()
    operator.start()
    yield
    operator.settings = before
    operator.stop()
    operator.start()


def test_what_injected_containers_do_is_not_what_the_job_does(new_run, api, injected, margin):
    run = new_run(injected, name="fails", maxRetries=1)
    # given a pod whose first container has ended well
    show(run, 1, "Running", **{"a-mesh": ended(0), "job": running(), "z-logs": running()})
    run.wait("Training")
    time.sleep(1)
    (first,) = [job["metadata"]["name"] for job in run.jobs()]

    # when ours fails and the others go on, then the pod goes, and after it comes the next attempt
    show(run, 1, "Running", **{"a-mesh": ended(0), "job": ended(6, "no storage"), "z-logs": running()})
    run.wait("Retrying")
    eventually(lambda: api.get(f"{JOBS.format(injected)}/{first}") is None, "its Job gone")

    # and when that one is done, it is done, and holds no GPU
    show(run, 2, "Running", **{"a-mesh": running(), "job": running(), "z-logs": running()})
    run.wait("Training")
    show(run, 2, "Running", **{"a-mesh": running(), "job": ended(0, encode(DONE).decode()), "z-logs": running()})
    status = run.wait("Completed")
    assert [attempt["reason"] for attempt in status["attempts"]] == ["StorageUnavailable", "Completed"]
    eventually(lambda: run.jobs() == [], "no Job")
    eventually(lambda: [p for p in api.items(PODS.format(injected)) if _of(p, run)] == [], "no pod")


def _of(pod: dict[str, Any], run: Run) -> bool:
    return bool(pod["metadata"].get("labels", {}).get("lmfinetune.dev/run-uid") == run.body()["metadata"]["uid"])


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.25])
def test_an_edit_right_after_the_creation_is_run_or_refused(new_run, api, delay):
    run = new_run(training={"seed": 1})
    time.sleep(delay)
    try:
        run.change(training={"seed": 2})
        seed = 2
    except urllib.error.HTTPError as refused:
        if refused.code != 422:  # which it is once an attempt is listed
            raise
        seed = 1
    eventually(lambda: run.status().get("attempts"), "an attempt")
    attempt = run.status()["attempts"][-1]["number"]
    handed = json.loads(run.job(attempt)["spec"]["template"]["metadata"]["annotations"]["lmfinetune.dev/run"])
    assert (handed["spec"]["training"]["seed"], run.status()["provenance"]["seed"]) == (seed, seed)
    run.ends(attempt, said=DONE)
    run.wait("Completed")
    eventually(lambda: len(run.jobs()) == 1, "the one Job")


def test_an_edit_of_which_the_job_knows_nothing_makes_it_anew(new_run, api, operator):
    # given a Job whose run the operator could not write down before it died
    run = new_run(training={"seed": 1})
    eventually(lambda: run.status().get("attempts"), "an attempt")
    operator.stop()
    api.patch(f"{run.path}/status", {"status": dict.fromkeys(run.status())})
    run.change(training={"seed": 2})

    # when it is back, then nothing of the new seed is claimed before a Job has it
    operator.start()
    eventually(lambda: run.status().get("attempts"), "an attempt")
    attempt = run.status()["attempts"][-1]["number"]
    handed = json.loads(run.job(attempt)["spec"]["template"]["metadata"]["annotations"]["lmfinetune.dev/run"])
    assert (attempt, handed["spec"]["training"]["seed"], run.status()["provenance"]["seed"]) == (2, 2, 2)


def test_a_foreign_finalizer_on_a_job_keeps_no_pod(new_run, api):
    run = new_run()
    run.runs()
    run.wait("Training")
    job = f"{JOBS.format(run.namespace)}/{run.job()['metadata']['name']}"
    api.patch(job, {"metadata": {"finalizers": [FINALIZER]}})
    run.change(suspend=True)
    eventually(lambda: api.items(PODS.format(run.namespace)) == [], "no pod")
    run.wait("Suspended")
    eventually(lambda: run.status()["attempts"][0].get("endTime"), "the attempt's end")
    assert api.get(job)["metadata"]["finalizers"] == [FINALIZER]
    run.change(suspend=False)
    run.ends(2, said=DONE)
    run.wait("Completed")
    api.patch(job, {"metadata": {"finalizers": None}})


def test_a_foreign_finalizer_on_a_run_keeps_no_pod(new_run, api):
    run = new_run()
    run.runs()
    run.wait("Training")
    api.patch(run.path, {"metadata": {"finalizers": [FINALIZER]}})
    run.delete()
    eventually(lambda: api.items(PODS.format(run.namespace)) == [], "no pod")
    assert run.body()["metadata"]["deletionTimestamp"]
    api.patch(run.path, {"metadata": {"finalizers": None}})
    eventually(lambda: api.get(run.path) is None, "the run gone")


def test_a_run_deleted_without_its_jobs_leaves_them(new_run, api):
    run = new_run()
    run.runs()
    run.wait("Training")
    job = f"{JOBS.format(run.namespace)}/{run.job()['metadata']['name']}"
    api.call("DELETE", f"{run.path}?propagationPolicy=Orphan")
    eventually(lambda: api.get(run.path) is None, "the run gone")
    time.sleep(2)
    assert "deletionTimestamp" not in api.get(job)["metadata"]
    assert len(api.items(PODS.format(run.namespace))) == 1


def test_a_job_deleted_without_its_pod_says_who_can_stop_that(new_run, api):
    run = new_run()
    run.runs()
    run.wait("Training")
    pod = run.pod()["metadata"]["name"]
    api.call("DELETE", f"{JOBS.format(run.namespace)}/{run.job()['metadata']['name']}?propagationPolicy=Orphan")
    eventually(lambda: f"kubectl delete pod {pod}" in run.condition()["message"], "the command in the message")
    run.change(suspend=True)
    run.wait("Suspended")
    assert f"kubectl delete pod {pod}" in run.condition()["message"]
    api.call("DELETE", f"{PODS.format(run.namespace)}/{pod}")
    eventually(lambda: run.status()["attempts"][0].get("endTime"), "the attempt's end")
    assert run.status()["attempts"][0]["reason"] == "Suspended"


def test_a_pod_that_waits_for_its_scheduling_gates_is_queued(new_run, api):
    namespace = api.namespace()
    patch = 'JSONPatch{op: "add", path: "/spec/schedulingGates", value: [{"name": "example.com/check"}]}'
    mutate_pods(api, namespace, f"[{patch}]", lambda pod: bool(pod["spec"].get("schedulingGates")))
    run = new_run(namespace)
    run.wait("Queued")
    assert "example.com/check" in run.condition()["message"]
    api.patch(f"{PODS.format(namespace)}/{run.pod()['metadata']['name']}", {"spec": {"schedulingGates": None}})
    run.wait("Pending")
