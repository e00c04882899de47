"""From a resource to its Job and back: every way an attempt can end, on a real API server and Job controller."""

import urllib.error

import pytest
from cluster.eventually import eventually
from cluster.operator.plane import JOBS, PODS
from support.results import DONE

from lmft_api.reasons import Reason
from lmft_api.status import CheckpointStatus
from lmft_api.wire.result import Result

FULL = {
    "resources": {"gpusPerNode": 1, "cpu": "2", "memory": "4Gi", "ephemeralStorage": "9Gi", "sharedMemory": "2Gi"},
    "preparation": "Inline",
    "output": {"uri": "s3://models/a", "credentialsSecretRef": {"name": "lmft-s3"}},
    "hubTokenSecretRef": {"name": "lmft-hub", "key": "token"},
    "podTemplate": {
        "labels": {"team": "a"},
        "annotations": {"example.com/note": "hello"},
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "serviceAccountName": "lmft-trainer",
        "imagePullSecrets": [{"name": "lmft-pull"}],
        "env": [{"name": "TZ", "value": "UTC"}],
        "volumes": [{"name": "data", "claimName": "lmft-corpus", "mountPath": "/data"}],
    },
}


def test_a_run_becomes_a_job_that_a_restricted_namespace_accepts(new_run, api):
    run = new_run()
    pod = run.pod()
    owner = run.job()["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("LMFineTune", "eli5", True)
    assert pod["spec"]["containers"][0]["image"] == "localhost/stub:dev"
    status = run.wait("Pending")
    assert status["phase"] == "Pending"
    assert [a["job"] for a in status["attempts"]] == ["eli5-1"]


def test_what_the_manifest_says_about_the_pod_arrives_in_it(new_run, api):
    namespace = api.namespace()
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    api.call("POST", path, {"metadata": {"name": "lmft-trainer"}})
    pod = new_run(namespace, **FULL).pod()
    spec, container = pod["spec"], pod["spec"]["containers"][0]
    assert container["resources"]["limits"] == {"memory": "4Gi", "ephemeral-storage": "9Gi", "nvidia.com/gpu": "1"}
    assert container["resources"]["requests"]["ephemeral-storage"] == "9Gi"
    assert (spec["nodeSelector"], spec["serviceAccountName"]) == ({"disk": "fast"}, "lmft-trainer")
    assert any(t.get("key") == "spot" for t in spec["tolerations"])
    assert spec["imagePullSecrets"] == [{"name": "lmft-pull"}]
    assert pod["metadata"]["labels"]["team"] == "a"
    assert pod["metadata"]["annotations"]["example.com/note"] == "hello"
    mounts = {m["mountPath"] for m in container["volumeMounts"]}
    assert {"/etc/lmft/run.json", "/etc/lmft/secrets/output", "/etc/lmft/secrets/hub", "/data", "/dev/shm"} <= mounts
    assert all(set(variable.get("valueFrom", {})) <= {"fieldRef"} for variable in container["env"])


def test_a_run_that_succeeds_shows_its_results_and_one_event_a_phase(new_run, api):
    run = new_run()
    run.runs()
    run.wait("Training")
    run.ends(said=DONE)
    status = run.wait("Completed")
    assert (status["results"]["perplexity"], status["phase"]) == ("49.6", "Succeeded")
    assert run.condition()["status"] == "True"

    def reasons():
        events = api.items(f"/api/v1/namespaces/{run.namespace}/events")
        return sorted(e["reason"] for e in events if e["involvedObject"]["kind"] == "LMFineTune")

    eventually(lambda: reasons() == ["Completed", "Training"], "one Event for each phase")


ENDS = [
    (2, Reason.DATASET_INVALID, "False", "DatasetInvalid"),
    (3, Reason.MODEL_NOT_FOUND, "False", "ModelNotFound"),
    (3, Reason.MODEL_ACCESS_DENIED, "False", "ModelAccessDenied"),
    (3, Reason.DATASET_NOT_FOUND, "False", "DatasetNotFound"),
    (3, Reason.DATASET_ACCESS_DENIED, "False", "DatasetAccessDenied"),
    (3, Reason.STORAGE_ACCESS_DENIED, "False", "StorageAccessDenied"),
    (1, Reason.ACCELERATOR_MISSING, "False", "AcceleratorMissing"),
    (4, Reason.ACCELERATOR_OUT_OF_MEMORY, "False", "AcceleratorOutOfMemory"),
    (5, Reason.DIVERGED, "False", "Diverged"),
    (6, Reason.STORAGE_UNAVAILABLE, "False", "StorageUnavailable"),
    (7, Reason.HUNG, "False", "Hung"),
    (1, None, "False", "InternalError"),
    (137, None, "False", "InternalError"),
    (5, None, "False", "Diverged"),
]


@pytest.mark.parametrize(("code", "said", "succeeded", "reason"), ENDS)
def test_a_failure_is_explained(new_run, code, said, succeeded, reason):
    run = new_run(maxRetries=0)
    run.runs()
    run.ends(code=code, said=Result(reason=said, message="This is why.") if said else "Traceback: boom")
    status = run.wait(reason)
    condition = run.condition()
    assert condition["status"] == succeeded
    assert ("This is why." if said else "boom") in condition["message"]
    assert status["attempts"][0]["exitCode"] == code


def test_a_kernel_out_of_memory_kill_has_a_reason_of_its_own(new_run):
    run = new_run(maxRetries=0)
    run.ends(code=137, why="OOMKilled")
    assert run.wait("OutOfMemory")["phase"] == "Failed"


def test_failures_are_retried_and_counted(new_run):
    run = new_run(maxRetries=1)
    run.ends(code=1, said="first")
    run.ends(2, code=1, said="second")
    status = run.wait("RetriesExhausted")
    assert (status["failures"], len(status["attempts"])) == (2, 2)
    assert "second" in run.condition()["message"]


def test_an_interruption_is_followed_at_once_and_counted_apart(new_run):
    run = new_run(maxRetries=0)
    checkpoint = CheckpointStatus(step=400, uri="s3://models/test/c")
    run.ends(code=75, said=Result(reason=Reason.INTERRUPTED, message="SIGTERM", checkpoint=checkpoint))
    run.ends(2, said=DONE)
    status = run.wait("Completed")
    assert (status["interruptions"], status.get("failures"), status["checkpoint"]["step"]) == (1, None, 400)


def test_a_pod_deleted_by_hand_is_followed_by_the_next_attempt(new_run, api):
    run = new_run()
    api.call("DELETE", f"{PODS.format(run.namespace)}/{run.pod()['metadata']['name']}")
    run.ends(2, said=DONE)
    assert run.wait("Completed")["attempts"][0]["reason"] == "Interrupted"


def test_a_job_deleted_by_hand_is_followed_by_the_next_attempt(new_run, api):
    run = new_run()
    path = f"{JOBS.format(run.namespace)}/{run.job()['metadata']['name']}"
    api.call("DELETE", path + "?propagationPolicy=Background")
    run.ends(2, said=DONE)
    assert run.wait("Completed")["attempts"][0]["reason"] == "Interrupted"


def test_deleting_a_run_leaves_nothing_and_its_name_can_be_used_again_at_once(new_run, api):
    run = new_run()
    first = run.pod()["metadata"]["uid"]
    assert "finalizers" not in run.body()["metadata"]
    run.delete()
    run.create()
    second = run.pod()
    assert second["metadata"]["uid"] != first
    run.ends(said=DONE)
    assert run.wait("Completed")["attempts"][0]["number"] == 1
    run.delete()
    eventually(lambda: not api.items(JOBS.format(run.namespace)), "Jobs gone")
    eventually(lambda: not api.items(PODS.format(run.namespace)), "Pods gone")


def test_a_name_of_253_characters_works(new_run):
    run = new_run(name="very-long.name" * 18 + "x")
    assert len(run.job()["metadata"]["name"]) <= 63
    run.ends(said=DONE)
    run.wait("Completed")


def test_one_name_in_two_namespaces_is_two_runs(new_run):
    first, second = new_run(), new_run()
    first.ends(said=DONE)
    first.wait("Completed")
    second.wait("Pending")
    assert "results" not in second.status()


def test_a_foreign_job_of_the_same_name_is_stepped_around(api, new_run):
    namespace = api.namespace()
    container = {"name": "c", "image": "i"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    api.call("POST", JOBS.format(namespace), {"metadata": {"name": "eli5-1"}, "spec": {"template": template}})
    run = new_run(namespace)
    assert run.job()["metadata"]["name"] != "eli5-1"
    eventually(lambda: run.status().get("attempts"), "the attempt in the status")
    assert run.status()["attempts"][0]["job"] == run.job()["metadata"]["name"]


@pytest.mark.parametrize("said", ['{"steps": 100000000000000000000}', '{"steps": -1}'])
def test_a_result_that_the_status_cannot_hold_is_told_and_tried_again(new_run, said):
    run = new_run()
    run.runs()
    run.ends(said=f'{{"reason": "Completed", "counts": {said}}}')
    assert run.job(2)
    eventually(lambda: len(run.status().get("attempts", [])) == 2, "the next attempt in the status")
    assert "left a result that cannot be read: counts.step" in run.status()["attempts"][0]["message"]


def test_a_job_that_a_policy_of_the_cluster_denies_is_tried_again(new_run, api):
    group = "/apis/admissionregistration.k8s.io/v1"
    namespace = api.namespace()
    rule = {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
    here = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    denial = {"expression": "false", "message": "no cost center"}
    spec = {"matchConstraints": {"resourceRules": [rule], "namespaceSelector": here}, "validations": [denial]}
    api.call("POST", f"{group}/validatingadmissionpolicies", {"metadata": {"name": namespace}, "spec": spec})
    binding = {"policyName": namespace, "validationActions": ["Deny"]}
    path = f"{group}/validatingadmissionpolicybindings"
    api.call("POST", path, {"metadata": {"name": namespace}, "spec": binding})
    probe = {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}

    def denied() -> bool:
        try:
            api.call("POST", f"{JOBS.format(namespace)}?dryRun=All", {"metadata": {"name": "probe"}, **probe})
        except urllib.error.HTTPError as problem:
            return problem.code == 422
        return False

    eventually(denied, "the policy in effect")
    run = new_run(namespace)
    run.wait("AdmissionFailed")
    assert "no cost center" in run.condition()["message"]
    api.call("DELETE", f"{path}/{namespace}")
    assert run.job()


def test_a_run_that_waits_for_itself_is_refused(new_run):
    status = new_run(resumeFrom={"name": "eli5"}).wait("InvalidSpec")
    assert "spec.resumeFrom.name: is this run itself" in status["conditions"][0]["message"]


def test_the_training_spec_cannot_change_once_an_attempt_exists(new_run):
    run = new_run()
    run.wait("Pending")
    with pytest.raises(urllib.error.HTTPError, match="422"):
        run.change(training={"epochs": 9})
    run.change(maxRetries=7)
