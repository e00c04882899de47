"""What a real kubelet and scheduler do to a run, and what the run says about it."""

import json
import time

import pytest
from cluster.eventually import eventually
from cluster.node.node import Team
from cluster.node.release import BUCKET
from cluster.node.training import Folder, small, texts


@pytest.mark.parametrize(
    ("name", "orders", "spec", "reason", "words"),
    [
        ("spec", {"exit": 2, "message": '{"reason":"DatasetInvalid","message":"spec.dataset.textField"}'}, {},
         "DatasetInvalid", "spec.dataset.textField"),
        ("refused", {"exit": 3, "message": '{"reason":"ModelNotFound","message":"no such model"}'}, {},
         "ModelNotFound", "no such model"),
        ("memory", {"exit": 4}, {}, "AcceleratorOutOfMemory", ""),
        ("diverged", {"exit": 5}, {}, "Diverged", ""),
        ("hung", {"exit": 7}, {"maxRetries": 0}, "Hung", ""),
        ("bug", {"exit": 1}, {"maxRetries": 0}, "InternalError", "the stub says"),
        ("kernel", {"eat": 400}, {"maxRetries": 0, "resources": {"memory": "64Mi"}}, "OutOfMemory", "memory"),
        ("storage", {"exit": 6}, {"maxRetries": 1}, "RetriesExhausted", "StorageUnavailable"),
    ],
)  # fmt: skip
def test_a_failure_says_why(team: Team, name, orders, spec, reason, words) -> None:
    run = team.stub(name, orders, **spec)
    condition = run.until(reason, seconds=60)
    assert condition["status"] == "False"
    assert words in condition["message"]
    assert len(run.status["attempts"]) == (2 if reason == "RetriesExhausted" else 1)
    assert (reason in dict(run.events(reason))) is True


def test_an_attempt_that_fails_is_followed_by_one_that_does_not(team: Team) -> None:
    run = team.stub("again", [{"exit": 6}, {"exit": 1}, {}])
    run.until("Completed", seconds=90)
    status = run.status
    assert [a["reason"] for a in status["attempts"]] == ["StorageUnavailable", "InternalError", "Completed"]
    assert status["failures"] == 2
    assert status["results"]["perplexity"] == "49.61"


def test_a_deleted_pod_is_followed_at_once_and_counts_as_an_interruption(team: Team) -> None:
    run = team.stub("evicted", [{"seconds": 300}, {}])
    pod = run.running_pod()
    team.kubectl("delete", "pod", pod, "--wait=false")
    run.until("Completed", seconds=90)
    status = run.status
    assert [a["reason"] for a in status["attempts"]] == ["Interrupted", "Completed"]
    assert (status["interruptions"], status.get("failures", 0)) == (1, 0)


def test_a_deleted_job_is_followed_by_the_next_attempt(team: Team) -> None:
    run = team.stub("jobless", [{"seconds": 300}, {}])
    run.running_pod()
    team.kubectl("delete", "job", run.jobs()[0]["metadata"]["name"], "--wait=false")
    run.until("Completed", seconds=90)
    assert len(run.status["attempts"]) == 2


def test_suspend_stops_the_pod_and_going_on_starts_another(team: Team) -> None:
    run = team.stub("paused", [{"seconds": 300}, {}])
    run.running_pod()
    team.kubectl("patch", "lmft", run.name, "--type=merge", "-p", '{"spec":{"suspend":true}}')
    eventually(lambda: run.until("Suspended") and not run.pods(), "no pod is left", 60)
    assert run.status["phase"] == "Suspended"
    team.kubectl("patch", "lmft", run.name, "--type=merge", "-p", '{"spec":{"suspend":false}}')
    run.until("Completed", seconds=60)
    assert run.status.get("failures", 0) == 0


def test_the_deadline_counts_over_all_attempts(team: Team) -> None:
    run = team.stub("late", {"seconds": 300}, activeDeadlineSeconds=5)
    assert "activeDeadlineSeconds" in run.until("DeadlineExceeded")["message"]
    eventually(lambda: not run.pods(), "no pod is left", 60)


def test_deletion_takes_jobs_and_pods_along_and_the_name_is_free_at_once(team: Team) -> None:
    first = team.stub("again", {"seconds": 300})
    first.running_pod()
    uid = first.body["metadata"]["uid"]
    assert "finalizers" not in first.body["metadata"]
    team.kubectl("delete", "lmft", "again")
    second = team.stub("again")
    second.until("Completed", seconds=90)
    assert second.status["attempts"][0]["number"] == 1
    selector = f"lmfinetune.dev/run-uid={uid}"
    eventually(lambda: not team.read("jobs,pods", "-l", selector).get("items"), "the old Job and pod are gone", 60)


def test_the_resource_goes_when_its_time_is_over_and_what_it_made_stays(team: Team, s3) -> None:
    # given a run that trains, and one with nothing but a note in its folder
    runs = [
        team.apply("brief", small(texts(s3, team), ttlSecondsAfterFinished=3)),
        team.stub("briefer", ttlSecondsAfterFinished=3),
    ]
    trained, noted = [Folder(s3, run) for run in runs]
    s3.put_object(Bucket=BUCKET, Key=f"{noted.prefix}note", Body=b"of somebody")
    assert trained.prefix.startswith(team.namespace)
    # when their time is over
    for run in runs:
        eventually(lambda run=run: not run.body, f"{run.name} is gone", 180)
    eventually(lambda: not team.read("jobs,pods").get("items"), "their Jobs and pods are gone", 60)
    # then storage has it all
    assert trained.report()["results"]["perplexity"] > 0
    assert trained.weights()
    assert trained.checkpoints()
    assert noted.read("note") == b"of somebody"


def test_a_missing_secret_is_named_and_the_run_goes_on_once_it_is_there(team: Team) -> None:
    run = team.stub("keyless", output={"uri": "s3://models", "credentialsSecretRef": {"name": "lmft-other"}})
    assert "lmft-other" in run.until("SecretNotFound", seconds=60)["message"]
    team.kubectl("create", "secret", "generic", "lmft-other", "--from-literal=AWS_ACCESS_KEY_ID=x")
    run.until("Completed", seconds=180)


def test_an_image_that_cannot_be_pulled_is_named(team: Team) -> None:
    run = team.stub("imageless", podTemplate={"image": "localhost/absent:1"})
    assert "localhost/absent:1" in run.until("ImagePullFailed", seconds=60)["message"]


def test_a_gpu_that_no_node_has_is_named_and_nothing_is_taken_meanwhile(team: Team) -> None:
    run = team.stub("big", resources={"gpusPerNode": 1, "gpuResourceName": "example.com/gpu"}, preparation="Inline")
    condition = run.until("Unschedulable", seconds=30)
    assert "example.com/gpu" in condition["message"]
    assert condition["status"] == "Unknown"


def test_a_quota_is_named_and_the_run_goes_on_once_it_is_raised(team: Team) -> None:
    team.kubectl("create", "quota", "small", "--hard=pods=0")
    run = team.stub("many")
    assert "quota" in run.until("QuotaExceeded", seconds=60)["message"]
    team.kubectl("delete", "quota", "small")
    run.until("Completed", seconds=120)


def test_what_policy_forbids_never_becomes_a_job(team: Team) -> None:
    run = team.stub("sly", podTemplate={"image": "docker.io/evil:1", "serviceAccountName": "admin"})
    message = run.until("InvalidSpec")["message"]
    assert "spec.podTemplate.image" in message
    assert "spec.podTemplate.serviceAccountName" in message
    assert run.jobs() == []


def test_an_operator_that_is_killed_comes_back_to_one_job(team: Team) -> None:
    runs = [team.stub(f"steady-{i}", {"seconds": 8}) for i in range(3)]
    team.node.kubectl("-n", "lmft-system", "delete", "pod", "-l", "app.kubernetes.io/name=lmfinetune",
                      "--grace-period=0", "--force")  # fmt: skip
    late = team.stub("while-away")
    for run in (*runs, late):
        run.until("Completed", seconds=120)
        assert len(run.jobs()) == 1
        assert len(run.status["attempts"]) == 1


def test_a_name_as_long_as_names_may_be_and_one_name_in_two_namespaces(team: Team) -> None:
    name = ".".join(["n" * 62] * 4) + "n"
    other = team.node.team()
    runs = [team.stub(name), other.stub(name)]
    for run in runs:
        run.until("Completed", seconds=60)
    assert runs[0].body["metadata"]["uid"] != runs[1].body["metadata"]["uid"]


def test_two_hundred_at_once_queue_for_the_node_and_all_finish(team: Team) -> None:
    spec = {
        "model": {"name": "stub/model"},
        "dataset": {"builtin": "PythonDocs"},
        "resources": {"cpu": "1m", "memory": "32Mi"},
        "podTemplate": {"image": team.node.images["stub"]},
    }
    kind = {"apiVersion": "lmfinetune.dev/v1alpha1", "kind": "LMFineTune"}
    bodies = [{**kind, "metadata": {"name": f"crowd-{i}"}, "spec": spec} for i in range(200)]
    team.kubectl("create", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": bodies}))
    until = time.monotonic() + 400
    while time.monotonic() < until:
        states = [item.get("status", {}).get("phase") for item in team.read("lmft")["items"]]
        if states.count("Succeeded") == 200:
            break
        time.sleep(3)
    assert states.count("Succeeded") == 200
    assert len(team.read("jobs")["items"]) == 200
