"""The state machine of a run: suspend, deadline, preparation and refusals, one situation a row."""

import pytest
from support.results import DONE, stopped

from lmft_api.reasons import Reason
from lmft_api.wire.result import Result
from lmft_api.wire.run_file import Stage
from lmft_operator.domain.facts import ResumeSource
from lmft_operator.settings import parse


def test_a_job_held_by_a_queue_is_left_alone(World):
    world = World(podTemplate={"labels": {"kueue.x-k8s.io/queue-name": "gpus"}})
    world.step()
    assert world.reason == "Queued"
    world.close_job(suspended=True)
    world.step()
    assert (world.reason, world.status.phase) == ("Queued", "Pending")
    assert world.later(100_000).delete_jobs == ()


# What a queue takes back is in test_queued_runs.py.


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
    assert world.later(41).delete_jobs == ("eli5-2",)
    world.end_pod(2, code=75, said=stopped(9))
    assert (world.succeeded, world.reason) == ("False", "DeadlineExceeded")
    assert world.jobs.keys() == {"eli5-1"}


def test_what_the_pod_saves_when_its_time_is_up_is_not_lost(World):
    world = World(activeDeadlineSeconds=100)
    world.step()
    world.run_pod()
    world.later(101)
    assert (world.succeeded, world.reason, world.status.phase) == ("Unknown", "DeadlineExceeded", "Training")
    assert "Stopping" in world.message
    world.now += 20
    world.end_pod(code=75, said=stopped(437), deleted=world.now + 100)
    assert (world.succeeded, world.reason, world.status.phase) == ("False", "DeadlineExceeded", "Failed")
    assert (world.status.checkpoint.step, world.status.attempts[0].checkpoint_step) == (437, 437)
    assert (world.status.usage.seconds, world.status.interruptions) == (121, None)
    assert world.status.attempts[0].reason == "DeadlineExceeded"


def test_a_pod_that_is_done_when_its_time_is_up_has_completed_the_run(World):
    world = World(activeDeadlineSeconds=100)
    world.step()
    world.run_pod()
    world.later(101)
    world.end_pod(said=DONE)
    assert world.reason == "Completed"


def test_a_clock_that_runs_behind_does_not_bring_a_stopped_run_back(World):
    world = World(activeDeadlineSeconds=100)
    world.step()
    world.run_pod()
    world.later(101)
    world.end_pod(code=75, said=stopped(437), finished=world.now - 60)
    assert (world.succeeded, world.reason, len(world.created)) == ("False", "DeadlineExceeded", 1)


def test_more_time_given_while_the_pod_is_stopped_lets_the_run_go_on(World):
    world = World(activeDeadlineSeconds=100)
    world.step()
    world.run_pod()
    world.later(101)
    world.spec["activeDeadlineSeconds"], world.generation = 1000, 2
    world.step()
    world.end_pod(code=75, said=stopped(437))
    assert (world.succeeded, len(world.created)) == ("Unknown", 2)


def hangs_in_terminating(world):
    world.pod(deleted=world.now + 120)


def lost_its_job(world):
    """A pod whose Job was deleted without it is not deleted."""


@pytest.mark.parametrize("happens", [hangs_in_terminating, lost_its_job])
def test_a_pod_that_does_not_end_when_its_time_is_up_is_not_waited_for_for_ever(World, happens):
    world = World(activeDeadlineSeconds=100)
    world.step()
    world.run_pod()
    world.later(101)
    happens(world)
    world.later(140)
    assert world.succeeded == "Unknown"
    world.later(20)
    assert (world.succeeded, world.reason) == ("False", "DeadlineExceeded")


def test_more_time_revives_a_run_that_used_its_own_up(World):
    world = World(activeDeadlineSeconds=10)
    world.step()
    world.run_pod()
    world.later(11)
    world.end_pod(code=75, said=stopped(5))
    assert (world.succeeded, world.reason) == ("False", "DeadlineExceeded")
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
    assert "(policy.maxDeadlineSeconds)" in world.message


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
    assert world.message.startswith("spec.a: wrong; spec.b: wrong too. See ")
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
    (ResumeSource(False), "Unknown", "Pending"),
    (ResumeSource(True), "Unknown", "Pending"),
    (ResumeSource(True, ended=True), "False", "InvalidSpec"),
    (ResumeSource(True, uri="s3://m/model"), "Unknown", "Pending"),
    (ResumeSource(True, ended=True, uri="s3://m/../other/model"), "False", "InvalidSpec"),
    (ResumeSource(True, ended=True, uri="file:///etc/lmft/secrets"), "False", "InvalidSpec"),
]


@pytest.mark.parametrize(("source", "succeeded", "reason"), SOURCES)
def test_a_run_that_cannot_start_from_another_ones_model_says_why(World, source, succeeded, reason):
    world = World(resumeFrom={"name": "base"})
    world.source = source
    world.step()
    assert (world.succeeded, world.reason, world.created) == (succeeded, reason, [])
    assert "spec.resumeFrom" in world.message


def test_a_run_starts_from_another_ones_model_when_that_is_there(World):
    world = World(resumeFrom={"name": "base"})
    world.source = ResumeSource(True, ended=True, uri="s3://m/model")
    world.step()
    assert (world.succeeded, world.reason) == ("Unknown", "Pending")
    assert [plan.resume_model_uri for plan in world.created] == ["s3://m/model"]
    assert world.status.provenance.resumed_from == "s3://m/model"


def test_a_run_that_has_nothing_to_start_from_ends_once_and_its_time_to_live_runs(World):
    world = World(resumeFrom={"name": "base"}, ttlSecondsAfterFinished=60)
    world.source = ResumeSource(True, ended=True)
    world.step()
    ended = world.status.completion_time
    world.later(30)
    assert (world.status.completion_time, world.writes) == (ended, 1)
    world.later(31)
    assert world.run_deleted


def test_a_run_that_started_from_another_ones_model_does_not_need_it_again(World):
    world = World(resumeFrom={"name": "base"})
    world.source = ResumeSource(True, ended=True, uri="s3://m/model")
    world.step()
    # when the other run is deleted, and this one interrupted
    world.source = ResumeSource(False)
    world.end_pod(code=75, said=stopped(3))
    assert [plan.resume_model_uri for plan in world.created] == ["s3://m/model", "s3://m/model"]
