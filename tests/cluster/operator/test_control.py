"""Suspending, time limits, queues, preparation, refusals, and what a run waits for."""

import json
import os
import signal
import urllib.error

import pytest
from cluster.eventually import eventually
from cluster.operator.plane import JOBS, PODS
from support.results import DONE

from lmft_api.reasons import ExitCode, Reason
from lmft_api.status import CheckpointStatus
from lmft_api.wire.result import Result
from lmft_api.wire.run_file import RUN_ANNOTATION

GPU = {"resources": {"gpusPerNode": 1}}
QUEUE = {"podTemplate": {"labels": {"kueue.x-k8s.io/queue-name": "gpus"}}}


def test_suspend_takes_the_job_away_and_false_goes_on(new_run, api):
    run = new_run()
    run.runs()
    run.wait("Training")
    run.change(suspend=True)
    run.wait("Suspended")
    eventually(lambda: not api.items(JOBS.format(run.namespace)), "no Job")
    eventually(lambda: run.status()["attempts"][0].get("endTime"), "the attempt's end")
    run.change(suspend=False)
    run.ends(2, said=DONE)
    status = run.wait("Completed")
    assert status["attempts"][0]["reason"] == "Suspended"
    assert "failures" not in status


def test_the_deadline_ends_a_run(new_run):
    run = new_run(activeDeadlineSeconds=2)
    run.runs()
    run.wait("DeadlineExceeded")
    eventually(lambda: run.condition()["status"] == "False", "the run's end")
    assert [attempt["reason"] for attempt in run.status()["attempts"]] == ["DeadlineExceeded"]


def test_time_to_live_removes_the_resource(new_run, api):
    run = new_run(ttlSecondsAfterFinished=1)
    run.ends(said=DONE)
    eventually(lambda: api.get(run.path) is None, "the resource gone")


def test_a_queue_controller_decides_when_the_job_starts(new_run, api):
    run = new_run(**QUEUE)
    job = run.job()
    assert job["spec"]["suspend"] is True
    run.wait("Queued")
    api.patch(f"{JOBS.format(run.namespace)}/{job['metadata']['name']}", {"spec": {"suspend": False}})
    run.ends(said=DONE)
    run.wait("Completed")


def test_a_queue_that_takes_the_place_of_a_run_away_is_asked_for_another(new_run, api):
    run = new_run(**QUEUE)

    def admit(attempt, admitted=True):
        name = run.job(attempt)["metadata"]["name"]
        api.patch(f"{JOBS.format(run.namespace)}/{name}", {"spec": {"suspend": not admitted}})

    admit(1)
    run.runs()
    run.wait("Training")
    admit(1, False)
    assert run.job(2)["spec"]["suspend"] is True
    run.wait("Queued")
    eventually(lambda: [job["metadata"]["name"] for job in run.jobs()] == ["eli5-2"], "the first attempt's Job gone")
    admit(2)
    run.ends(2, said=DONE)
    status = run.wait("Completed")
    assert [attempt["reason"] for attempt in status["attempts"]] == ["Interrupted", "Completed"]


def test_a_gpu_is_asked_for_only_after_the_preparation(new_run):
    run = new_run(**GPU)
    prepare = run.job()
    assert prepare["metadata"]["labels"]["lmfinetune.dev/stage"] == "Prepare"
    assert "limits" not in prepare["spec"]["template"]["spec"]["containers"][0]["resources"]
    run.runs()
    run.wait("Preparing")
    run.ends(said=DONE)
    train = run.job(2)
    assert train["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    run.ends(2, said=DONE)
    run.wait("Completed")


def test_a_wrong_manifest_fails_in_preparation_for_the_price_of_a_cpu(new_run):
    run = new_run(**GPU)
    run.ends(code=3, said=Result(reason=Reason.MODEL_NOT_FOUND, message="No such model."))
    run.wait("ModelNotFound")
    assert len(run.jobs()) == 1


CHANGE = {
    "training": {"epochs": 7},
    "dataset": {"files": ["s3://corpora/b.txt"], "format": "text", "builtin": None},
    "output": {"uri": "s3://models/elsewhere"},
}


def of_the_change(job):
    """Whether a Job's pods are given the spec as CHANGE leaves it."""
    given = json.loads(job["spec"]["template"]["metadata"]["annotations"][RUN_ANNOTATION])["spec"]
    parts = given.get("training"), given["dataset"].get("files"), given["output"]["uri"]
    return parts == ({"epochs": 7}, ["s3://corpora/b.txt"], "s3://models/elsewhere")


def open_attempt(run, stage):
    """The number of the open attempt of a stage that is made of the changed spec, once the status lists it."""

    def look():
        jobs = {job["metadata"]["name"] for job in run.jobs() if of_the_change(job)}
        open_ = (a for a in run.status().get("attempts", []) if "endTime" not in a)
        return next((a["number"] for a in open_ if a["stage"] == stage and a["job"] in jobs), None)

    return eventually(look, f"an open attempt {stage} of the changed manifest")


def trains_as_it_stands_now(run):
    """What is prepared next is the manifest as it was changed, and that is what trains."""
    again = open_attempt(run, "Prepare")
    run.ends(again, said=DONE)
    trains = open_attempt(run, "Train")
    assert trains > again
    settled = run.status()["provenance"]
    listed = {attempt["number"]: attempt for attempt in run.status()["attempts"]}
    assert listed[again]["specHash"] == settled["specHash"] != listed[1]["specHash"]
    # and from here on it is fixed
    with pytest.raises(urllib.error.HTTPError, match="422"):
        run.change(training={"epochs": 9})
    run.ends(trains, said=DONE)
    status = run.wait("Completed")
    assert status["provenance"]["specHash"] == settled["specHash"]
    assert [attempt["stage"] for attempt in status["attempts"]].count("Train") == 1
    assert "failures" not in status


def test_a_manifest_that_changes_while_it_is_prepared_is_prepared_again_and_trains_as_it_stands_then(new_run):
    run = new_run(**GPU)
    run.runs()
    run.wait("Preparing")
    stale = run.job()["metadata"]["name"]

    run.change(**CHANGE)

    eventually(lambda: stale not in [job["metadata"]["name"] for job in run.jobs()], "the stale preparation stopped")
    trains_as_it_stands_now(run)


END_OF_PREPARATION = [
    {"said": DONE},
    {
        "code": ExitCode.ACCELERATOR_MEMORY,
        "said": Result(reason=Reason.ACCELERATOR_OUT_OF_MEMORY, message="one row needs 90 GiB"),
    },
]


@pytest.mark.parametrize("end", END_OF_PREPARATION, ids=["prepared", "refused"])
def test_a_manifest_that_changes_as_its_preparation_ends_is_prepared_again(new_run, operator, end):
    run = new_run(**GPU)
    run.runs()
    run.wait("Preparing")

    # when both are written before the operator has looked at either: it learns of them in any order
    os.kill(operator.process.pid, signal.SIGSTOP)
    try:
        run.change(**CHANGE)
        run.ends(**end)
    finally:
        os.kill(operator.process.pid, signal.SIGCONT)

    trains_as_it_stands_now(run)


def test_a_run_starts_from_the_model_of_another_one_when_that_is_done(new_run):
    base = new_run()
    run = new_run(base.namespace, "next", resumeFrom={"name": "eli5"})
    run.wait("Pending")
    assert run.jobs() == []
    base.ends(said=DONE)
    run.ends(said=DONE)
    assert run.wait("Completed")["provenance"]["resumedFrom"] == "s3://models/test/model"


def test_a_run_starts_from_the_checkpoint_of_one_that_failed(new_run):
    base = new_run()
    run = new_run(base.namespace, "next", resumeFrom={"name": "eli5"})
    checkpoint = CheckpointStatus(step=7, uri="s3://models/test/checkpoints/attempt-0001/step-00000007")
    base.ends(code=5, said=Result(reason=Reason.DIVERGED, message="NaN", checkpoint=checkpoint))
    run.ends(said=DONE)
    assert run.wait("Completed")["provenance"]["resumedFrom"] == checkpoint.uri


REFUSED = [
    ({"model": {"name": "s3://models/a", "credentialsSecretRef": {"name": "admin"}}}, "policy.secrets"),
    ({"hubTokenSecretRef": {"name": "admin"}}, "policy.secrets"),
    ({"podTemplate": {"imagePullSecrets": [{"name": "admin"}]}}, "policy.secrets"),
    (
        {"podTemplate": {"volumes": [{"name": "v", "claimName": "postgres", "mountPath": "/data"}]}},
        "policy.volumes",
    ),
    ({"podTemplate": {"env": [{"name": "LD_PRELOAD", "value": "/data/x.so"}]}}, "policy.envNames"),
    ({"podTemplate": {"env": [{"name": "HTTPS_PROXY", "value": "http://evil"}]}}, "policy.envNames"),
    ({"podTemplate": {"annotations": {"vault.hashicorp.com/agent-inject": "true"}}}, "policy.annotationKeys"),
    ({"podTemplate": {"labels": {"app": "shop"}}}, "policy.labelKeys"),
    ({"podTemplate": {"tolerations": [{"operator": "Exists"}]}}, "policy.tolerationKeys"),
    ({"podTemplate": {"priorityClassName": "system-node-critical"}}, "policy.priorityClasses"),
    ({"resources": {"gpusPerNode": 1, "gpuResourceName": "devices.kubevirt.io/kvm"}}, "policy.gpuResourceNames"),
    ({"model": {"name": "file:///var/run/secrets"}}, "volumes"),
    ({"output": {"uri": "s3://platform/team-b"}}, "belongs to this namespace"),
    ({"dataset": {"files": ["s3://platform/*/secret.txt"], "format": "text"}}, "belongs to this namespace"),
    ({"model": {"name": "someone/code", "trustRemoteCode": True}}, "policy.trustRemoteCode"),
    ({"podTemplate": {"image": "evil.example.com/x"}}, "policy.images"),
    ({"output": {"uri": "s3://models/a", "credentialsSecretRef": {"name": "admin"}}}, "policy.secrets"),
    ({"podTemplate": {"serviceAccountName": "admin"}}, "policy.serviceAccounts"),
    ({"training": {"trainerClass": "a.B"}}, "policy.userCode"),
    ({"dataset": {"files": ["file:///etc/lmft/secrets/output/*"], "format": "text"}}, "volumes"),
]


@pytest.mark.parametrize(("spec", "rule"), REFUSED)
def test_what_policy_forbids_starts_nothing_and_names_the_rule(new_run, spec, rule):
    run = new_run(**spec)
    run.wait("InvalidSpec")
    assert run.condition()["status"] == "False"
    assert rule in run.condition()["message"]
    assert run.jobs() == []


def test_a_namespace_with_rules_of_its_own_has_no_gpus(new_run, api):
    api.call("POST", "/api/v1/namespaces", {"metadata": {"name": "without-gpus"}})
    run = new_run("without-gpus", **GPU)
    run.wait("InvalidSpec")
    assert "policy.maxGpus" in run.condition()["message"]
    assert run.jobs() == []


def test_all_that_is_refused_is_said_at_once(new_run):
    run = new_run(
        podTemplate={"image": "evil.example.com/x", "serviceAccountName": "admin"}, training={"callbacks": ["a.B"]}
    )
    run.wait("InvalidSpec")
    rules = ("policy.images", "policy.serviceAccounts", "policy.userCode")
    assert [rule for rule in rules if rule not in run.condition()["message"]] == []


def test_a_refused_manifest_goes_on_when_it_is_mended(new_run):
    run = new_run(podTemplate={"image": "evil.example.com/x"})
    run.wait("InvalidSpec")
    run.change(podTemplate={"image": None})
    run.ends(said=DONE)
    run.wait("Completed")


def test_a_quota_is_explained_and_clears_by_itself(new_run, api):
    namespace = api.namespace()
    quota = f"/api/v1/namespaces/{namespace}/resourcequotas"
    api.call("POST", quota, {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}})
    eventually(lambda: api.call("GET", f"{quota}/none").get("status", {}).get("hard"), "a quota that counts")
    run = new_run(namespace)
    run.wait("QuotaExceeded")
    assert "none" in run.condition()["message"]
    api.call("DELETE", f"{quota}/none")
    run.ends(said=DONE)
    run.wait("Completed", 120)


def test_a_missing_service_account_is_named(new_run):
    run = new_run(podTemplate={"serviceAccountName": "lmft-nobody"})
    eventually(lambda: "lmft-nobody" in run.condition().get("message", ""), "the account's name in the message")
    assert run.reason() == "AdmissionFailed"


def test_a_manifest_that_makes_no_valid_job_is_told_so_and_goes_on_when_mended(new_run):
    # A label like any other, but for Jobs, whose pods carry it with the Job's own name.
    run = new_run(podTemplate={"labels": {"job-name": "mine"}})
    run.wait("InvalidSpec")
    assert run.condition()["status"] == "False"
    assert "job-name" in run.condition()["message"]
    assert "attempts" not in run.status()
    run.change(podTemplate=None)
    run.ends(said=DONE)
    run.wait("Completed")


def test_an_unschedulable_pod_says_what_would_mend_it(new_run, api):
    run = new_run(podTemplate={"nodeSelector": {"disk": "fast"}})
    message = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. preemption: 0/2 nodes."
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    path = f"{PODS.format(run.namespace)}/{run.pod()['metadata']['name']}/status"
    api.patch(path, {"status": {"conditions": [scheduled]}})
    run.wait("Unschedulable")
    assert run.condition()["message"].startswith(
        "None of 2 nodes can take the pod: 2 without the label disk=fast. Fix spec.podTemplate.nodeSelector"
    )
    run.runs()
    run.wait("Training")


def test_a_batch_that_was_halved_shows_in_the_attempt_and_as_an_event(new_run, api):
    run = new_run(**GPU, preparation="Inline")
    halved = "out of accelerator memory at step 7: perDeviceBatchSize 8 → 4, gradientAccumulationSteps 1 → 2"
    run.ends(said=DONE.model_copy(update={"adjustments": [halved]}))
    assert run.wait("Completed")["attempts"][0]["adjustments"] == [halved]

    def event():
        events = api.items(f"/api/v1/namespaces/{run.namespace}/events")
        return next((e for e in events if e["reason"] == "Adjusted"), None)

    assert halved in eventually(event, "an Event")["message"]


WAITS = [
    ({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}, "ImagePullFailed"),
    ({"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}}, "SecretNotFound"),
]


@pytest.mark.parametrize(("state", "reason"), WAITS)
def test_what_kubelet_waits_for_is_explained_and_clears(new_run, state, reason):
    run = new_run()
    run.show(1, "Pending", state)
    run.wait(reason)
    run.runs()
    run.wait("Training")
