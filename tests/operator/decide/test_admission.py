"""Admission that fails or refuses: why, what to do, and that the manifest may still change."""

from dataclasses import replace

import pytest

from lmft_api.reasons import Reason
from lmft_api.wire.result import Result
from lmft_operator.decide.admission import at_work, explained, refusal
from lmft_operator.domain.alterations import altered, other_pods, repeats
from lmft_operator.domain.facts import WarningEvent

# As API servers of 1.30 to 1.36 say it.
WEBHOOK_DEAD = (
    'Internal error occurred: failed calling webhook "jobs.example.com": failed to call webhook: Post '
    '"https://gate.infra.svc:443/?timeout=10s": dial tcp 10.0.0.9:443: connect: connection refused'
)
WEBHOOK_DENIES = 'admission webhook "jobs.example.com" denied the request: no Jobs on Fridays'
POLICY_DENIES = (
    "jobs.batch \"eli5-1\" is forbidden: ValidatingAdmissionPolicy 'team-label' with binding 'all' denied request: "
    "label team is required"
)
LIMIT = 'pods "eli5-1-x7k2p" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi'
NO_LIMIT = 'pods "eli5-1-x7k2p" is forbidden: [maximum cpu usage per Container is 2.  No limit is specified]'
PRIORITY = 'pods "eli5-1-x7k2p" is forbidden: no PriorityClass with name urgent was found'
ACCOUNT = (
    'pods "eli5-1-" is forbidden: error looking up service account team-a/trainer: serviceaccount "trainer" not found'
)
RUNTIME = 'pods "eli5-1-" is forbidden: pod rejected: RuntimeClass "nvidia" not found'
SECURITY = 'pods "eli5-1-x7k2p" is forbidden: violates PodSecurity "restricted:latest": runAsUser=0'
OPENSHIFT = 'pods "eli5-1-" is forbidden: unable to validate against any security context constraint: [provider x]'
USED_UP = 'pods "eli5-1-x7k2p" is forbidden: exceeded quota: gpus, requested: nvidia.com/gpu=1, used: 2, limited: 2'
TOO_SMALL = (
    'pods "eli5-1-" is forbidden: exceeded quota: q, requested: requests.cpu=1,requests.memory=2Gi, '
    "used: requests.cpu=1,requests.memory=0, limited: requests.cpu=1,requests.memory=2147483647"
)
USED_PODS = 'pods "eli5-1-" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0'
DEFAULT_LIMIT = (
    'Pod "eli5-1-gdsjq" is invalid: spec.containers[0].resources.requests: Invalid value: "4": must be less than or '
    "equal to cpu limit of 1"
)
WANTS_CPU = 'pods "eli5-1-x7k2p" is forbidden: failed quota: compute: must specify limits.cpu for: job'
WANTS_ALL = (
    'pods "eli5-1-x7k2p" is forbidden: failed quota: compute: must specify limits.cpu for: job; '
    "limits.memory for: job; requests.storage for: job"
)
STRIPPED = "A policy of the cluster has changed the Job: metadata.ownerReferences. It was deleted: without them …"

TABLE = [
    (WEBHOOK_DEAD, Reason.ADMISSION_FAILED, ['"jobs.example.com" restored', "failurePolicy Ignore"], True),
    (WEBHOOK_DENIES, Reason.ADMISSION_FAILED, ['what the webhook "jobs.example.com" objects to'], True),
    (POLICY_DENIES, Reason.ADMISSION_FAILED, ['what the admission policy "team-label" objects to'], True),
    (LIMIT, Reason.ADMISSION_FAILED, ["Set spec.resources.memory within the namespace's LimitRange"], True),
    (NO_LIMIT, Reason.ADMISSION_FAILED, ["spec.resources.cpu", "LimitRange"], True),
    (PRIORITY, Reason.ADMISSION_FAILED, ["spec.podTemplate.priorityClassName", 'PriorityClass "urgent"'], True),
    (ACCOUNT, Reason.ADMISSION_FAILED, ['ServiceAccount "trainer"', "spec.podTemplate.serviceAccountName"], True),
    (RUNTIME, Reason.ADMISSION_FAILED, ['RuntimeClass "nvidia"', "spec.podTemplate.runtimeClassName"], True),
    (SECURITY, Reason.ADMISSION_FAILED, ["Pod Security"], True),
    (OPENSHIFT, Reason.ADMISSION_FAILED, ["set the chart's job.userID to null"], True),
    ('pods "eli5-1-" is forbidden: something new', Reason.ADMISSION_FAILED, ["Fix what the message names"], True),
    (USED_UP, Reason.QUOTA_EXCEEDED, ["Free quota, or ask for it to be raised"], False),
    (TOO_SMALL, Reason.QUOTA_EXCEEDED, ["request less in spec.resources.memory, or have the quota raised"], True),
    (USED_PODS, Reason.QUOTA_EXCEEDED, ["Free quota, or ask for it to be raised"], False),
    (DEFAULT_LIMIT, Reason.ADMISSION_FAILED, ["spec.resources", "LimitRange changed, whose cpu limit is lower"], True),
    (WANTS_CPU, Reason.QUOTA_EXCEEDED, ["policy.maxCpu", "LimitRange with a default CPU limit"], True),
    (WANTS_ALL, Reason.QUOTA_EXCEEDED, ["policy.maxCpu", "set spec.resources.memory", "requests.storage, which"], True),
    (STRIPPED, Reason.ADMISSION_FAILED, ["webhooks and policies not to change that in Jobs labelled"], True),
    ("namespace team-a is forbidden because it is being terminated", Reason.PENDING, [], False),
]


@pytest.mark.parametrize(("words", "reason", "remedies", "changeable"), TABLE)
def test_a_refusal_has_a_reason_and_a_remedy_that_fits(words, reason, remedies, changeable):
    found = refusal(words)
    assert (found.reason, found.changeable) == (reason, changeable)
    assert [words for words in remedies if words not in found.remedy] == []
    cause, message = explained("The pod cannot be created: ", words)
    assert cause == reason
    assert message.startswith(f"The pod cannot be created: {words.rstrip('. ')}")


@pytest.mark.parametrize("words", [WEBHOOK_DEAD, WEBHOOK_DENIES, POLICY_DENIES, USED_UP, WANTS_CPU])
def test_admission_is_known_by_its_words_whatever_status_it_chose(words):
    assert at_work(words)


@pytest.mark.parametrize(
    "words", ["etcdserver: leader changed", "the server is currently unable to handle the request"]
)
def test_an_api_server_in_trouble_is_not_admission(words):
    assert not at_work(words)


def refused(world, words=LIMIT):
    world.warnings["job-1"] = WarningEvent("FailedCreate", words, world.now)
    return world.step()


@pytest.mark.parametrize("words", [LIMIT, PRIORITY, ACCOUNT, RUNTIME, SECURITY, WANTS_CPU])
def test_a_first_attempt_whose_pod_is_refused_settles_nothing(World, words):
    world = World()
    world.step()
    refused(world, words)
    assert world.reason == refusal(words).reason
    assert (world.status.attempts, world.status.provenance) == (None, None)
    assert [reason for reason, _ in world.events] == [refusal(words).reason]
    assert refusal(words).remedy in world.message


def test_while_the_pod_is_refused_a_new_job_is_tried_now_and_then_and_said_once(World):
    world = World()
    world.step()
    for _ in range(20):
        refused(world)
        world.later(31)
    assert 10 < len(world.created) <= 21
    assert {plan.attempt for plan in world.created} == {1}
    assert [reason for reason, _ in world.events] == ["AdmissionFailed"]


def test_another_manifest_is_tried_at_once(World):
    world = World(resources={"memory": "2Gi"})
    world.step()
    refused(world)
    world.spec["resources"] = {"memory": "1Gi"}
    world.generation = 2
    assert world.step().delete_jobs == ("eli5-1",)
    del world.warnings["job-1"]
    world.step()
    assert [plan.name for plan in world.created] == ["eli5-1", "eli5-1"]
    world.run_pod()
    assert (world.reason, len(world.status.attempts)) == ("Training", 1)


def test_a_pod_that_is_let_in_after_all_is_the_attempts(World):
    world = World()
    world.step()
    refused(world)
    world.run_pod()
    assert (world.reason, [a.number for a in world.status.attempts]) == ("Training", [1])
    assert world.status.provenance.spec_hash is not None


def test_a_quota_that_is_used_up_is_waited_for_with_the_job_in_place(World):
    world = World()
    world.step()
    refused(world, USED_UP)
    world.later(600)
    assert (world.reason, list(world.jobs), len(world.status.attempts)) == ("QuotaExceeded", ["eli5-1"], 1)


def test_a_later_attempt_whose_pod_is_refused_waits_with_its_job(World):
    world = World()
    world.step()
    world.end_pod(1, code=75)
    world.later(1)
    world.warnings["job-2"] = WarningEvent("FailedCreate", LIMIT, world.now)
    world.later(60)
    assert (world.reason, len(world.status.attempts), list(world.jobs)[-1]) == ("AdmissionFailed", 2, "eli5-2")


OURS = {"backoffLimit": 0, "completions": 1, "parallelism": 1, "podReplacementPolicy": "Failed"}
CHANGES = [
    ({}, "", False, False),
    ({"backoffLimit": 6}, "backoffLimit 6 rather than 0", True, False),
    ({"activeDeadlineSeconds": 60}, "activeDeadlineSeconds 60", False, False),
    ({"ttlSecondsAfterFinished": 0}, "ttlSecondsAfterFinished 0", False, False),
    ({"parallelism": 3}, "parallelism 3 rather than 1", False, True),
    ({"completions": 2, "backoffLimit": 1}, "backoffLimit 1 rather than 0, completions 2 rather than 1", True, True),
    ({"activeDeadlineSeconds": "x" * 9999}, f"activeDeadlineSeconds {'x' * 20}", False, False),
]


@pytest.mark.parametrize(("changes", "words", "again", "several"), CHANGES)
def test_what_policies_change_in_a_job_is_known_by_name(changes, words, again, several):
    spec = OURS | changes
    assert (altered(spec), repeats(spec), other_pods(spec)) == (words, again, several)


def test_a_job_that_would_make_a_second_pod_is_deleted_with_the_end_of_its_first(World):
    world = World()
    world.step()
    world.jobs["eli5-1"] = replace(world.jobs["eli5-1"], altered="backoffLimit 6 rather than 0", repeats=True)
    world.pod(phase="Failed", reason="Evicted", message="The node was low on memory.")
    assert world.step().delete_jobs == ("eli5-1",)
    assert "A policy of the cluster has changed the Job: backoffLimit 6" in world.status.attempts[0].message


def test_a_deadline_of_the_clusters_is_named_as_the_cause(World):
    world = World()
    world.step()
    world.run_pod()
    world.jobs["eli5-1"] = replace(world.jobs["eli5-1"], altered="activeDeadlineSeconds 60")
    world.end_pod(code=75, said=Result(reason=Reason.INTERRUPTED, message="Stopped by SIGTERM."))
    assert "activeDeadlineSeconds 60" in world.status.attempts[0].message
    assert any("activeDeadlineSeconds 60" in words for _, words in world.events)
