"""The state machine of a run, one situation a row; nothing here knows a cluster."""

import pytest

from lmft_api.reasons import ExitCode, Reason
from lmft_api.result import Counts, Result
from lmft_api.run import Stage
from lmft_api.status import CheckpointStatus, Results
from lmft_operator.facts import Source, Warning
from lmft_operator.settings import parse

DONE = Result(
    reason=Reason.COMPLETED,
    message="Perplexity fell from 62.3 to 49.6.",
    results=Results(perplexity="49.6", baseline_perplexity="62.3", model_uri="s3://m/model"),
    counts=Counts(steps=100, total_steps=100),
)


def stopped(step: int | None = None) -> Result:
    checkpoint = None if step is None else CheckpointStatus(step=step, uri=f"s3://c/{step}")
    return Result(reason=Reason.INTERRUPTED, message="Stopped by SIGTERM.", checkpoint=checkpoint)


# ---- the straight way


def test_a_new_run_gets_its_job_and_a_status(World):
    world = World()
    world.step()
    assert [(p.name, p.attempt, p.stage, p.gpus) for p in world.created] == [("eli5-1", 1, Stage.ALL, 0)]
    assert (world.succeeded, world.reason, world.status.phase) == ("Unknown", "Pending", "Pending")
    assert world.status.model == "distilbert/distilgpt2"
    assert world.status.provenance.seed == 42


def test_a_decision_made_again_changes_nothing(World):
    world = World()
    world.step()
    again = world.later(5)
    assert again.create is None
    assert world.writes == 1


def test_a_run_that_succeeds_shows_its_results(World):
    world = World()
    world.step()
    world.run_pod()
    assert (world.reason, world.status.phase) == ("Training", "Training")
    world.now += 60
    world.end_pod(said=DONE)
    assert (world.succeeded, world.reason, world.status.phase) == ("True", "Completed", "Succeeded")
    assert world.status.results.perplexity == "49.6"
    assert world.status.progress.display == "100%"
    assert world.status.usage.seconds == 60
    assert world.status.attempts[0].reason == "Completed"
    assert [reason for reason, _ in world.events] == ["Training", "Completed"]


def test_an_ended_run_is_left_alone(World):
    world = World()
    world.step()
    world.end_pod(said=DONE)
    writes = world.writes
    world.later(10_000)
    assert (world.writes, len(world.created)) == (writes, 1)
    assert "eli5-1" in world.jobs


def test_a_run_that_is_being_deleted_is_left_alone(World):
    world = World()
    world.deleting = True
    assert world.step().create is None
    assert world.writes == 0


# ---- how attempts end

FINAL = [
    (ExitCode.INVALID, Reason.DATASET_INVALID, Reason.DATASET_INVALID),
    (ExitCode.REFUSED, Reason.MODEL_NOT_FOUND, Reason.MODEL_NOT_FOUND),
    (ExitCode.REFUSED, Reason.STORAGE_ACCESS_DENIED, Reason.STORAGE_ACCESS_DENIED),
    (ExitCode.ACCELERATOR_MEMORY, Reason.ACCELERATOR_OUT_OF_MEMORY, Reason.ACCELERATOR_OUT_OF_MEMORY),
    (ExitCode.DIVERGED, Reason.DIVERGED, Reason.DIVERGED),
    (ExitCode.INVALID, None, Reason.INVALID_SPEC),
    (ExitCode.DIVERGED, None, Reason.DIVERGED),
]


@pytest.mark.parametrize(("code", "said", "shown"), FINAL)
def test_an_attempt_that_cannot_end_differently_ends_the_run(World, code, said, shown):
    world = World()
    world.step()
    world.end_pod(code=code, said=Result(reason=said, message="Because.") if said else "some words")
    assert (world.succeeded, world.reason) == ("False", shown)
    assert ("Because." if said else "some words") in world.message
    assert world.later(1000).create is None


RETRIED = [
    (ExitCode.UNAVAILABLE, "x", {}, Reason.STORAGE_UNAVAILABLE),
    (ExitCode.HUNG, "x", {}, Reason.HUNG),
    (1, "Traceback: boom", {}, Reason.INTERNAL_ERROR),
    (137, "", {"exit_reason": "OOMKilled"}, Reason.OUT_OF_MEMORY),
    (137, "", {"exit_reason": "Error"}, Reason.INTERNAL_ERROR),
    (139, "", {}, Reason.INTERNAL_ERROR),
]


@pytest.mark.parametrize(("code", "words", "facts", "reason"), RETRIED)
def test_a_failure_that_may_pass_is_tried_again_after_a_back_off(World, code, words, facts, reason):
    world = World()
    world.step()
    world.end_pod(code=code, said=words, **facts)
    assert (world.succeeded, world.reason) == ("Unknown", "Retrying")
    assert world.status.attempts[0].reason == reason
    assert world.status.failures == 1
    assert world.later(9).create is None
    world.later(2)
    assert [plan.attempt for plan in world.created] == [1, 2]


def test_back_off_doubles_and_retries_end(World):
    world = World(maxRetries=2)
    world.step()
    delays = []
    for attempt in (1, 2):
        delays.append(world.end_pod(attempt, code=1).look_again)
        world.later(delays[-1])
    world.end_pod(3, code=1, said="boom")
    assert delays == [10, 20]
    assert (world.succeeded, world.reason, world.status.failures) == ("False", "RetriesExhausted", 3)
    assert "InternalError" in world.message
    assert "boom" in world.message


def test_without_retries_the_failure_itself_is_the_reason(World):
    world = World(maxRetries=0)
    world.step()
    world.end_pod(code=6, said=Result(reason=Reason.STORAGE_UNAVAILABLE, message="No answer from s3."))
    assert (world.reason, world.message) == ("StorageUnavailable", "No answer from s3.")


def test_more_retries_revive_a_run_that_used_them_up(World):
    world = World(maxRetries=0)
    world.step()
    world.end_pod(code=1)
    assert world.succeeded == "False"
    world.spec["maxRetries"], world.generation = 1, 2
    world.later(60)
    assert [plan.attempt for plan in world.created] == [1, 2]
    assert world.succeeded == "Unknown"
    assert world.status.completion_time is None


def test_a_final_failure_is_not_revived(World):
    world = World(maxRetries=0)
    world.step()
    world.end_pod(code=5, said="nan")
    world.spec["maxRetries"], world.generation = 5, 2
    world.later(60)
    assert len(world.created) == 1
    assert world.status.observed_generation == 2


INTERRUPTED = [
    {"code": 75, "said": stopped(400)},
    {"code": 143, "deleted": 1.0},
    {"code": 1, "disruption": "Eviction API: evicting"},
    {"code": 137, "exit_reason": "OOMKilled", "deleted": 1.0},
]


@pytest.mark.parametrize("end", INTERRUPTED)
def test_an_interruption_is_followed_at_once_and_not_counted_as_a_failure(World, end):
    world = World(maxRetries=0)
    world.step()
    world.run_pod()
    world.end_pod(**end)
    assert [plan.attempt for plan in world.created] == [1, 2]
    assert (world.status.failures, world.status.interruptions) == (None, 1)
    assert world.status.attempts[0].reason == "Interrupted"
    assert world.events[-1][0] == "Interrupted"


def test_a_pod_evicted_before_its_container_started_is_an_interruption(World):
    world = World()
    world.step()
    world.pod(phase="Failed", reason="Evicted", message="The node was low on memory")
    world.step()
    assert world.status.attempts[0].reason == "Interrupted"
    assert "low on memory" in world.status.attempts[0].message
    assert len(world.created) == 2


def test_interruptions_without_a_new_checkpoint_slow_down_and_end(World):
    world = World()
    world.step()
    waits = []
    for attempt in range(1, 12):
        assert world.succeeded == "Unknown"
        decision = world.end_pod(attempt, code=75, said=stopped())
        waits.append(0 if decision.create else decision.look_again)
        if not decision.create and decision.look_again:
            world.later(decision.look_again)
    assert waits[:6] == [0, 0, 0, 10, 20, 40]
    assert (world.succeeded, world.reason) == ("False", "RetriesExhausted")
    assert "without a new checkpoint" in world.message


def test_interruptions_with_progress_go_on_for_ever(World):
    world = World()
    world.step()
    for attempt in range(1, 40):
        world.end_pod(attempt, code=75, said=stopped(attempt * 10))
    assert (world.succeeded, len(world.created)) == ("Unknown", 40)
    assert world.status.interruptions == 39
    assert len(world.status.attempts) == 32


def test_a_job_deleted_by_hand_is_followed_by_the_next_attempt(World):
    world = World()
    world.step()
    del world.jobs["eli5-1"]
    world.step()
    assert [plan.attempt for plan in world.created] == [1, 2]
    assert world.status.attempts[0].reason == "Interrupted"


def test_the_next_attempt_waits_for_the_old_pod_to_end(World):
    world = World()
    world.step()
    world.run_pod()
    del world.jobs["eli5-1"]
    world.pod(deleted=world.now + 120)
    world.step()
    assert (len(world.created), world.reason) == (1, "Interrupted")
    world.now += 20
    world.end_pod(code=75, said=stopped(40))
    assert len(world.created) == 2
    assert world.status.checkpoint.step == 40


def test_a_pod_that_hangs_in_terminating_is_not_waited_for_beyond_grace_and_margin(World):
    world = World()
    world.step()
    world.run_pod()
    world.pod(deleted=world.now + 120)
    world.close_job(failed=True)
    assert world.step().create is None
    assert world.later(145).create is None
    world.later(10)
    assert [plan.attempt for plan in world.created] == [1, 2]


def test_a_pod_gone_with_its_result_unread_is_followed_by_an_attempt_without_gpu(World):
    world = World(resources={"gpusPerNode": 1}, preparation="Inline")
    world.step()
    world.run_pod()
    world.pod(gone=True)
    world.close_job(complete=True)
    world.step()
    assert [(plan.attempt, plan.gpus) for plan in world.created] == [(1, 1), (2, 0)]
    world.end_pod(2, said=DONE)
    assert world.succeeded == "True"


def test_a_job_that_never_leaves_a_result_is_given_up(World):
    world = World()
    world.step()
    for attempt in (1, 2, 3):
        world.end_pod(attempt, said="just a log")
    assert (world.succeeded, world.reason, len(world.created)) == ("False", "InternalError", 3)


def test_last_words_are_shown_without_secrets(World):
    world = World(maxRetries=0)
    world.step()
    world.end_pod(code=1, said="loading\ntoken=hf_abcdefghijklmnop failed\nsecret_key: hunter22 x")
    assert "failed" in world.message
    assert "hf_abc" not in world.message
    assert "hunter22" not in world.message


# ---- after a crash of the operator


def test_a_job_created_just_before_a_crash_is_adopted(World):
    world = World()
    decision = world.step()
    world.status = type(world.status)()
    world.step()
    assert len(world.created) == 1
    assert world.status.attempts[0].job == decision.create.name


def test_two_attempts_unknown_to_the_status_are_both_written_down(World):
    world = World()
    world.step()
    before = world.status
    world.end_pod(code=75, said=stopped(10))
    world.status = before
    world.end_pod(2, said=DONE)
    assert [a.reason for a in world.status.attempts] == ["Interrupted", "Completed"]
    assert (world.succeeded, len(world.created)) == ("True", 2)


# ---- what a run waits for

PENDING = [
    ({"unschedulable": "0/3 nodes have a free nvidia.com/gpu"}, Reason.UNSCHEDULABLE, "nvidia.com/gpu"),
    ({"waiting_reason": "ImagePullBackOff", "waiting_message": "no such image"}, Reason.IMAGE_PULL_FAILED, "no such"),
    ({"waiting_reason": "ErrImageNeverPull"}, Reason.IMAGE_PULL_FAILED, "ErrImageNeverPull"),
    (
        {"waiting_reason": "CreateContainerConfigError", "waiting_message": 'secret "lmft-x" not found'},
        Reason.SECRET_NOT_FOUND,
        "lmft-x",
    ),
    ({"waiting_reason": "CreateContainerError", "waiting_message": "no disk"}, Reason.PENDING, "no disk"),
    ({"waiting_reason": "ContainerCreating"}, Reason.PENDING, "Waiting for the pod"),
]


@pytest.mark.parametrize(("facts", "reason", "words"), PENDING)
def test_pending_is_explained_and_clears_by_itself(World, facts, reason, words):
    world = World()
    world.step()
    world.pod(**facts)
    world.step()
    assert (world.succeeded, world.reason, world.status.phase) == ("Unknown", reason, "Pending")
    assert words in world.message
    world.run_pod()
    assert world.reason == "Training"


def test_a_quota_is_named_from_the_jobs_event(World):
    world = World()
    world.step()
    world.warnings["job-1"] = Warning("FailedCreate", 'pods "x" is forbidden: exceeded quota: gpus', world.now)
    world.step()
    assert (world.reason, "exceeded quota: gpus" in world.message) == ("QuotaExceeded", True)
    world.pod()
    world.step()
    assert world.reason == "Pending"


def test_a_missing_secret_is_named_from_the_pods_event(World):
    world = World()
    world.step()
    world.pod(waiting_reason="ContainerCreating")
    world.warnings["pod-1"] = Warning("FailedMount", 'MountVolume.SetUp failed: secret "lmft-s3" not found', world.now)
    world.step()
    assert (world.reason, "lmft-s3" in world.message) == ("SecretNotFound", True)


def test_an_old_warning_is_no_news(World):
    world = World()
    world.step()
    world.pod()
    world.warnings["pod-1"] = Warning("FailedMount", 'secret "lmft-s3" not found', world.now - 1000)
    world.step()
    assert world.reason == "Pending"


def test_a_job_held_by_a_queue_is_left_alone(World):
    world = World(podTemplate={"labels": {"kueue.x-k8s.io/queue-name": "gpus"}})
    world.step()
    assert world.reason == "Queued"
    world.close_job(suspended=True)
    world.step()
    assert (world.reason, world.status.phase) == ("Queued", "Pending")
    assert world.later(100_000).delete_jobs == ()


def test_a_job_that_its_queue_takes_back_is_no_failure(World):
    world = World(podTemplate={"labels": {"kueue.x-k8s.io/queue-name": "gpus"}})
    world.step()
    world.run_pod()
    world.close_job(suspended=True)
    world.end_pod(code=75, said=stopped(3))
    assert (world.reason, len(world.created), world.status.attempts[0].end_time) == ("Queued", 1, None)


# ---- suspend, deadline, time to live


def test_suspend_stops_the_job_and_false_goes_on(World):
    world = World()
    world.step()
    world.run_pod()
    world.spec["suspend"] = True
    assert world.step().delete_jobs == ("eli5-1",)
    assert (world.reason, world.status.phase) == ("Suspended", "Suspended")
    world.end_pod(code=75, said=stopped(7), deleted=world.now + 120)
    assert (world.status.attempts[0].reason, world.status.interruptions) == ("Suspended", None)
    assert world.later(1000).create is None
    world.spec["suspend"] = False
    world.step()
    assert [plan.attempt for plan in world.created] == [1, 2]
    assert world.status.checkpoint.step == 7


def test_a_run_created_suspended_starts_nothing(World):
    world = World(suspend=True)
    world.step()
    assert (world.created, world.reason, world.status.phase) == ([], "Suspended", "Suspended")


def test_the_deadline_counts_running_time_over_all_attempts(World):
    world = World(activeDeadlineSeconds=100)
    world.step()
    world.now += 1000
    world.run_pod()
    world.now += 60
    world.end_pod(code=75, said=stopped(5))
    world.now += 500
    decision = world.run_pod(2)
    assert decision.look_again == pytest.approx(40)
    world.later(41)
    assert (world.succeeded, world.reason) == ("False", "DeadlineExceeded")
    assert world.jobs.keys() == {"eli5-1"}


def test_more_time_revives_a_run_that_used_its_own_up(World):
    world = World(activeDeadlineSeconds=10)
    world.step()
    world.run_pod()
    world.later(11)
    assert world.reason == "DeadlineExceeded"
    world.end_pod(code=75, said=stopped(5))
    world.spec["activeDeadlineSeconds"], world.generation = 100, 2
    world.step()
    assert [plan.attempt for plan in world.created] == [1, 2]


def test_the_policys_longest_time_is_the_deadline_of_runs_without_one(World):
    world = World()
    world.settings = parse("policy: {maxDeadlineSeconds: 30}")
    world.step()
    world.run_pod()
    world.later(31)
    assert world.reason == "DeadlineExceeded"


def test_time_to_live_deletes_the_resource(World):
    world = World(ttlSecondsAfterFinished=60)
    world.step()
    world.end_pod(said=DONE)
    assert world.step().look_again == pytest.approx(60)
    assert not world.run_deleted
    world.later(61)
    assert world.run_deleted


# ---- preparation

GPU = {"resources": {"gpusPerNode": 1}}
STAGES = [
    ({}, [Stage.ALL], [0]),
    (GPU, [Stage.PREPARE, Stage.TRAIN], [0, 1]),
    (GPU | {"preparation": "Auto"}, [Stage.PREPARE, Stage.TRAIN], [0, 1]),
    (GPU | {"preparation": "Inline"}, [Stage.ALL], [1]),
    ({"preparation": "Separate"}, [Stage.PREPARE, Stage.TRAIN], [0, 0]),
]


@pytest.mark.parametrize(("spec", "stages", "gpus"), STAGES)
def test_a_gpu_is_taken_only_when_all_is_prepared(World, spec, stages, gpus):
    world = World(**spec)
    world.step()
    for attempt in range(1, len(stages) + 1):
        world.run_pod(attempt)
        world.end_pod(attempt, said=DONE)
    assert (world.stages, [plan.gpus for plan in world.created]) == (stages, gpus)
    assert world.succeeded == "True"


def test_preparing_is_shown_as_such(World):
    world = World(**GPU)
    world.step()
    assert world.created[0].name == "eli5-1-prepare"
    world.run_pod()
    assert (world.reason, world.status.phase) == ("Preparing", "Preparing")


def test_a_manifest_that_fails_in_preparation_takes_no_gpu(World):
    world = World(**GPU)
    world.step()
    world.end_pod(code=3, said=Result(reason=Reason.DATASET_NOT_FOUND, message="No such data set."))
    assert (world.reason, len(world.created)) == ("DatasetNotFound", 1)


def test_gpu_seconds_count_only_attempts_with_a_gpu(World):
    world = World(**GPU)
    world.step()
    for attempt, seconds in ((1, 30), (2, 100)):
        world.run_pod(attempt)
        world.now += seconds
        world.end_pod(attempt, said=DONE)
    assert (world.status.usage.seconds, world.status.usage.gpu_seconds) == (130, 100)


def test_an_interrupted_training_is_not_prepared_again(World):
    world = World(**GPU)
    world.step()
    world.end_pod(1, said=DONE)
    world.end_pod(2, code=75, said=stopped(3))
    assert world.stages == [Stage.PREPARE, Stage.TRAIN, Stage.TRAIN]


# ---- refusals and other runs


def test_an_invalid_manifest_starts_nothing_and_lists_every_problem(World):
    world = World()
    world.problems = ("spec.a: wrong", "spec.b: wrong too")
    world.step()
    assert (world.created, world.succeeded, world.reason) == ([], "False", "InvalidSpec")
    assert world.message == "spec.a: wrong; spec.b: wrong too"
    world.problems = ()
    world.step()
    assert (len(world.created), world.succeeded) == (1, "Unknown")
    assert world.status.completion_time is None


def test_a_policy_that_tightens_stops_the_next_attempt_not_the_running_one(World):
    world = World()
    world.step()
    world.run_pod()
    world.problems = ("spec.podTemplate.image: not allowed (policy.images)",)
    world.step()
    assert world.reason == "Training"
    world.end_pod(code=75, said=stopped(1))
    assert (world.reason, len(world.created)) == ("InvalidSpec", 1)


SOURCES = [
    (Source(False), "Unknown", "Pending", 0),
    (Source(True), "Unknown", "Pending", 0),
    (Source(True, ended=True), "False", "InvalidSpec", 0),
    (Source(True, ended=True, model_uri="s3://m/model"), "Unknown", "Pending", 1),
]


@pytest.mark.parametrize(("source", "succeeded", "reason", "jobs"), SOURCES)
def test_a_run_starts_from_another_ones_model_when_that_is_there(World, source, succeeded, reason, jobs):
    world = World(resumeFrom={"name": "base"})
    world.source = source
    world.step()
    assert (world.succeeded, world.reason, len(world.created)) == (succeeded, reason, jobs)
    assert "base" in world.message or jobs
    if jobs:
        assert world.created[0].resume_model_uri == "s3://m/model"
        assert world.status.provenance.resumed_from == "s3://m/model"
