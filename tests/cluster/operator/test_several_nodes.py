"""A run on several nodes on a real API server and Job controller: its Job, its Service, and how its pods end."""

from contextlib import suppress
from typing import Any
from urllib.error import HTTPError

import pytest
from cluster.eventually import eventually
from cluster.operator.plane import JOBS, PODS, Api, Json, Operator, Run, timestamps
from support.results import DONE

from lmft_api.reasons import Reason
from lmft_api.wire.result import Result, encode

SERVICES = "/api/v1/namespaces/{}/services"
POLICIES = "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies"
INDEX = "batch.kubernetes.io/job-completion-index"
STOPPED = Result(reason=Reason.INTERRUPTED, message="Stopped by SIGTERM after step 9.")
ECHO = Result(reason=Reason.PEERS_MISSING, message="Rank 1 is gone.")
FAILED = Result(reason=Reason.STORAGE_UNAVAILABLE, message="Rank 1: the bucket does not answer.")


class Several(Run):
    """A run of which every pod is played."""

    def pods(self, attempt: int, number: int = 2) -> list[Json]:
        """The pods of an attempt in the order of their numbers, once all are there."""
        uid = self.job(attempt)["metadata"]["uid"]
        path = f"{PODS.format(self.namespace)}?labelSelector=batch.kubernetes.io/controller-uid={uid}"
        found = eventually(lambda: (pods := self.api.items(path)) and len(pods) == number and pods, "all pods")
        return sorted(found, key=lambda pod: int(pod["metadata"]["labels"].get(INDEX, 0)))

    def play(self, pod: Json, phase: str, state: Json) -> None:
        container = {
            "name": "job", "image": "i", "imageID": "i", "ready": False, "restartCount": 0, "state": state,
        }  # fmt: skip
        path = f"{PODS.format(self.namespace)}/{pod['metadata']['name']}/status"
        self.api.patch(path, {"status": {"phase": phase, "containerStatuses": [container]}})

    def begin(self, pod: Json) -> None:
        self.play(pod, "Running", {"running": {"startedAt": timestamps(0)[1]}})

    def end(self, pod: Json, code: int, said: Result | None = None) -> None:
        start, end = timestamps(10)
        words = encode(said).decode() if said is not None else ""
        ended = {"exitCode": code, "startedAt": start, "finishedAt": end, "reason": "Error", "message": words}
        self.play(pod, "Failed" if code else "Succeeded", {"terminated": ended})

    def trains(self) -> list[Json]:
        """Bring it through its preparation; returns the pods that train."""
        self.runs()
        self.ends(said=Result(reason=Reason.COMPLETED, message="Prepared."))
        pods = self.pods(2)
        for pod in pods:
            self.begin(pod)
        self.wait("Training")
        return pods

    def services(self) -> list[str]:
        return self.named(SERVICES)

    def named(self, path: str) -> list[str]:
        return [found["metadata"]["name"] for found in self.api.items(path.format(self.namespace))]


@pytest.fixture
def several(api: Api, operator: Operator) -> Several:
    made = Several(api, api.namespace(), spec={"resources": {"nodes": 2}, "maxRetries": 1})
    made.create()
    return made


def test_an_attempt_on_two_nodes_is_an_indexed_job_and_a_headless_service(several: Several) -> None:
    pods = several.trains()

    job = several.job(2)
    uid = several.body()["metadata"]["uid"]
    assert several.services() == [f"lmft-{uid[:8]}-2"]
    service = several.api.call("GET", f"{SERVICES.format(several.namespace)}/lmft-{uid[:8]}-2")
    assert [(o["uid"], o["controller"]) for o in service["metadata"]["ownerReferences"]] == [(uid, True)]
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    policy = several.api.call("GET", f"{POLICIES.format(several.namespace)}/lmft-{uid[:8]}-2")
    assert policy["spec"]["podSelector"]["matchLabels"] == service["spec"]["selector"]
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert [pod["spec"]["hostname"] for pod in pods] == ["eli5-2-0", "eli5-2-1"]
    assert {pod["spec"]["subdomain"] for pod in pods} == {service["metadata"]["name"]}
    assert several.job(1)["spec"].get("completionMode") != "Indexed"
    attempt = several.status()["attempts"][1]
    assert (attempt["nodes"], "gpusPerNode" in attempt) == (2, True)

    # when index 0 is done and its peer too, then so is the run, and the Service goes
    several.end(pods[1], 0)
    several.end(pods[0], 0, DONE)
    assert several.wait("Completed")["phase"] == "Succeeded"
    eventually(lambda: several.services() == several.named(POLICIES) == [], "no Service and no policy")


def test_the_cause_is_that_of_the_pod_that_ended_by_itself(several: Several) -> None:
    pods = several.trains()

    several.end(pods[1], 6, FAILED)
    # The Job's controller deletes the other one, which saves and ends.
    path = f"{PODS.format(several.namespace)}/{pods[0]['metadata']['name']}"
    eventually(lambda: "deletionTimestamp" in (several.api.get(path) or {"metadata": {"deletionTimestamp": ""}})[
        "metadata"
    ], "the peer is told to end")  # fmt: skip
    with suppress(HTTPError):  # it may be gone by now
        several.end(pods[0], 75, STOPPED)

    def closed() -> Any:
        return several.status()["attempts"][1].get("endTime")

    eventually(closed, "the attempt's end")
    attempt = several.status()["attempts"][1]
    assert attempt["reason"] == "StorageUnavailable"
    assert f"Pod {pods[1]['metadata']['name']}" in attempt["message"]

    # and the next attempt has as many pods again, and one Service of its own
    assert len(several.pods(3)) == 2
    assert several.services() == [several.job(3)["spec"]["template"]["spec"]["subdomain"]]
    jobs = several.api.items(JOBS.format(several.namespace))
    numbers = [job["metadata"]["labels"]["lmfinetune.dev/attempt"] for job in jobs]
    assert len(numbers) == len(set(numbers)), "no attempt has two Jobs"


SELECTS = {"ports": [{"port": 80}], "selector": {"a": "b"}}


@pytest.mark.parametrize(("path", "spec"), [(SERVICES, SELECTS), (POLICIES, {"podSelector": {}})])
def test_what_somebody_else_has_under_the_runs_name_is_never_used(
    api: Api, operator: Operator, path: str, spec: Json
) -> None:
    run = Several(api, api.namespace(), spec={"resources": {"nodes": 2}})
    run.create()
    uid = run.body()["metadata"]["uid"]
    name = f"lmft-{uid[:8]}-2"
    api.call("POST", path.format(run.namespace), {"metadata": {"name": name}, "spec": spec})

    run.runs()
    run.ends(said=Result(reason=Reason.COMPLETED, message="Prepared."))

    eventually(lambda: "exists and is not this run's; delete it" in run.condition().get("message", ""), "the reason")
    assert len(run.jobs()) == 1
    api.call("DELETE", f"{path.format(run.namespace)}/{name}")
    assert len(run.pods(2)) == 2


def test_the_number_of_nodes_may_change_while_it_is_suspended(several: Several) -> None:
    several.trains()
    several.change(suspend=True)
    several.wait("Suspended")
    eventually(lambda: several.status()["attempts"][1].get("endTime"), "the attempt's end", 240)

    several.change(suspend=False, resources={"nodes": 3})

    assert len(several.pods(3, 3)) == 3
    assert several.status()["attempts"][2]["nodes"] == 3
