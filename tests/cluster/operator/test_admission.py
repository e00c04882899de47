"""Admission that fails, refuses or changes: a reason, an Event and a remedy within seconds, one pod an attempt."""

import urllib.error
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cluster.eventually import eventually
from cluster.operator.plane import PODS, Api, Json, Run

Make = Callable[..., Run]
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
TEMPLATE = {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}}
PROBE: Json = {"metadata": {"name": "probe"}, "spec": {"template": TEMPLATE}}


def refusal(api: Api, path: str, body: Json) -> str:
    """What the API server says to an object that it does not take; empty when it takes it."""
    try:
        api.call("POST", path, body)
    except urllib.error.HTTPError as problem:
        return problem.read().decode()
    return ""


def events(run: Run) -> list[tuple[str, str]]:
    """Reason and message of the Events about a run."""
    found = run.api.items(f"/api/v1/namespaces/{run.namespace}/events")
    return [(e["reason"], e["message"]) for e in found if e["involvedObject"]["kind"] == "LMFineTune"]


@pytest.fixture
def dead_webhook(api: Api) -> Iterator[str]:
    """A namespace whose Jobs a webhook is to look at that nobody serves."""
    namespace = api.namespace()
    body = {
        "metadata": {"name": f"dead-{namespace}"},
        "webhooks": [
            {
                "name": "jobs.example.com",
                "clientConfig": {"url": "https://127.0.0.1:1/"},
                "rules": [
                    {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
                ],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "failurePolicy": "Fail",
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "timeoutSeconds": 2,
            }
        ],
    }
    path = f"{ADMISSION}/validatingwebhookconfigurations"
    api.call("POST", path, body)
    yield namespace
    if api.get(f"{path}/dead-{namespace}"):
        api.call("DELETE", f"{path}/dead-{namespace}")


def test_a_dead_webhook_is_named_and_the_run_goes_on_when_it_is_gone(
    api: Api, new_run: Make, dead_webhook: str
) -> None:
    # given an API server that has taken the webhook up
    path = f"/apis/batch/v1/namespaces/{dead_webhook}/jobs?dryRun=All"
    eventually(lambda: "jobs.example.com" in refusal(api, path, PROBE), "a webhook that is asked")

    # when a run is made
    run = new_run(dead_webhook)
    run.wait("AdmissionFailed", 15)

    # then it says why and what to do, and its manifest may change
    message = run.condition()["message"]
    assert 'failed calling webhook "jobs.example.com"' in message
    assert 'Have the webhook "jobs.example.com" restored' in message
    assert "#admissionfailed" in message
    assert "attempts" not in run.status()
    eventually(lambda: "AdmissionFailed" in dict(events(run)), "an Event")
    run.change(training={"seed": 7})

    # and goes on with the manifest as it is then
    api.call("DELETE", f"{ADMISSION}/validatingwebhookconfigurations/dead-{dead_webhook}")
    run.job()
    run.runs()
    run.wait("Training")
    assert run.status()["provenance"]["seed"] == 7


def limit_range(api: Api, namespace: str) -> None:
    limits = [{"type": "Container", "max": {"memory": "1Gi"}}]
    api.call(
        "POST",
        f"/api/v1/namespaces/{namespace}/limitranges",
        {"metadata": {"name": "small"}, "spec": {"limits": limits}},
    )


def memory_quota(api: Api, namespace: str) -> None:
    body = {"metadata": {"name": "compute"}, "spec": {"hard": {"limits.memory": "8Gi"}}}
    api.call("POST", f"/api/v1/namespaces/{namespace}/resourcequotas", body)
    path = f"/api/v1/namespaces/{namespace}/resourcequotas/compute"
    eventually(lambda: api.call("GET", path).get("status", {}).get("hard"), "a quota that is counted")


REFUSALS: dict[str, tuple[Callable[[Api, str], None] | None, Json, str, str, Json]] = {
    "LimitRange": (
        limit_range,
        {"resources": {"memory": "4Gi"}},
        "AdmissionFailed",
        "Set spec.resources.memory within the namespace's LimitRange",
        {"resources": {"memory": "1Gi"}},
    ),
    "PriorityClass": (
        None,
        {"podTemplate": {"priorityClassName": "urgent"}},
        "AdmissionFailed",
        'create the PriorityClass "urgent"',
        {"podTemplate": None},
    ),
    "ServiceAccount": (
        None,
        {"podTemplate": {"serviceAccountName": "lmft-absent"}},
        "AdmissionFailed",
        'Create the ServiceAccount "lmft-absent"',
        {"podTemplate": None},
    ),
    "RuntimeClass": (
        None,
        {"podTemplate": {"runtimeClassName": "absent"}},
        "AdmissionFailed",
        'create the RuntimeClass "absent"',
        {"podTemplate": None},
    ),
    "ResourceQuota on limits": (
        memory_quota,
        {},
        "QuotaExceeded",
        "set spec.resources.memory; or ask the platform team to set policy.maxMemory",
        {"resources": {"memory": "1Gi"}},
    ),
}


@pytest.mark.parametrize(("prepare", "spec", "reason", "remedy", "change"), REFUSALS.values(), ids=REFUSALS)
def test_a_refused_pod_is_explained_and_another_manifest_is_taken(
    api: Api,
    new_run: Make,
    prepare: Callable[[Api, str], None] | None,
    spec: Json,
    reason: str,
    remedy: str,
    change: dict[str, Any],
) -> None:
    namespace = api.namespace()
    if prepare is not None:
        prepare(api, namespace)

    run = new_run(namespace, **spec)
    run.wait(reason, 15)

    assert remedy in run.condition()["message"]
    eventually(lambda: reason in dict(events(run)), "an Event")
    eventually(lambda: "attempts" not in run.status(), "a manifest that may change")
    run.change(**change)
    # The withdrawn Job may still be there, so the attempt that runs may have the next number.
    [attempt] = eventually(lambda: run.status().get("attempts"), "an attempt", 30)
    run.runs(attempt["number"])
    run.wait("Training", 15)
    assert [one["job"] for one in run.status()["attempts"]] == [attempt["job"]]


@pytest.fixture
def meddling(api: Api) -> Iterator[str]:
    """A namespace in which a policy of the cluster changes every Job."""
    namespace = api.namespace()
    name = f"meddling-{namespace}"
    jobs = {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
    change = "Object{spec: Object.spec{backoffLimit: 6, activeDeadlineSeconds: 86400, ttlSecondsAfterFinished: 3600}}"
    policy = {
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {
                "resourceRules": [jobs],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            },
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": change}}],
        },
    }
    api.call("POST", f"{ADMISSION}/mutatingadmissionpolicies", policy)
    api.call(
        "POST",
        f"{ADMISSION}/mutatingadmissionpolicybindings",
        {"metadata": {"name": name}, "spec": {"policyName": name}},
    )
    yield namespace
    for kind in ("mutatingadmissionpolicybindings", "mutatingadmissionpolicies"):
        api.call("DELETE", f"{ADMISSION}/{kind}/{name}")


def test_a_job_that_policies_change_makes_one_pod_an_attempt_and_the_change_is_named(
    api: Api, new_run: Make, meddling: str
) -> None:
    def changed() -> bool:
        answer = api.call("POST", f"/apis/batch/v1/namespaces/{meddling}/jobs?dryRun=All", PROBE)
        return bool(answer["spec"].get("ttlSecondsAfterFinished"))

    eventually(changed, "a policy at work")

    run = new_run(meddling, maxRetries=2)
    run.runs()
    run.wait("Training")
    assert run.job()["spec"]["backoffLimit"] == 6
    changes = "backoffLimit 6 rather than 0, activeDeadlineSeconds 86400, ttlSecondsAfterFinished 3600"
    eventually(lambda: changes in dict(events(run)).get("JobChanged", ""), "an Event about the change")

    run.ends(code=1)
    run.pod(2)
    run.runs(2)
    run.wait("Training")
    assert changes in run.status()["attempts"][0]["message"]

    def failed() -> bool:
        conditions = run.job(1)["status"].get("conditions", [])
        return any(c["type"] == "Failed" and c["status"] == "True" for c in conditions)

    eventually(failed, "a Job that its controller has closed")
    pods = api.items(PODS.format(meddling))
    assert sorted(pod["metadata"]["labels"]["lmfinetune.dev/attempt"] for pod in pods) == ["1", "2"]
