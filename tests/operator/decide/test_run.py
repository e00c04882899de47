"""The state machine of a run, one situation a row; nothing here knows a cluster."""

import pytest
from support.results import DONE, stopped

from lmft_api.reasons import ExitCode, Reason
from lmft_api.status import Progress
from lmft_api.wire.result import Result
from lmft_api.wire.run_file import Stage

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
    (2, "", {}, Reason.INTERNAL_ERROR),  # killed before it could say a word: the code is runc's
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


def test_a_kill_that_is_not_for_want_of_memory_is_told_as_the_nodes(World):
    world = World()
    world.step()
    world.end_pod(code=137, said="epoch 1/2  71/500", exit_reason="Error")
    assert "killed it (SIGKILL)" in world.status.attempts[0].message
    assert "71/500" in world.status.attempts[0].message


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
    assert world.reason == "StorageUnavailable"
    assert world.message.startswith("No answer from s3. See ")


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
    {"code": 2, "deleted": 1.0},
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


def test_more_retries_revive_a_run_that_interruptions_ended(World):
    world = World()
    world.step()
    for attempt in range(1, 12):
        world.later(world.end_pod(attempt, code=75, said=stopped()).look_again or 0)
    assert (world.reason, len(world.created)) == ("RetriesExhausted", 11)
    world.spec["maxRetries"], world.generation = 12, 2
    world.later(1000)
    assert (world.succeeded, len(world.created)) == ("Unknown", 12)
    world.later(world.end_pod(12, code=75, said=stopped()).look_again)
    world.end_pod(13, code=75, said=stopped())
    assert (world.reason, len(world.created)) == ("RetriesExhausted", 13)


def test_idle_interruptions_end_whatever_a_run_asks_for(World):
    world = World(maxRetries=100)
    world.step()
    for attempt in range(1, 33):
        world.later(world.end_pod(attempt, code=75, said=stopped()).look_again or 0)
    assert (world.reason, len(world.created)) == ("RetriesExhausted", 32)


def fails(world):
    world.end_pod(code=5, said=Result(reason=Reason.DIVERGED, message="NaN"))


def is_interrupted(world):
    world.end_pod(code=75, said=stopped(42))


def is_suspended(world):
    world.spec["suspend"] = True
    world.step()
    world.end_pod(code=75, said=stopped(42))


@pytest.mark.parametrize("ends", [fails, is_interrupted, is_suspended])
def test_what_does_not_run_is_never_about_to_be_done(World, ends):
    world = World()
    world.step()
    world.run_pod()
    world.status = world.status.model_copy(update={"progress": Progress(percent=42, eta="3m10s", step=42)})
    ends(world)
    assert (world.status.progress.eta, world.status.progress.step) == (None, 42)


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
