"""What people read: every end leads to the page that explains it, and a job that adjusted itself says how."""

import re
from pathlib import Path

import pytest
from support.results import DONE, stopped

from lmft_api.reasons import FAILURES, REASONS, Reason
from lmft_api.wire.result import Result
from lmft_operator.domain.facts import WarningEvent
from lmft_operator.settings import parse

PAGE = (Path(__file__).parents[3] / "docs/troubleshooting.md").read_text(encoding="utf-8")
ANCHORS = {heading.lower() for heading in re.findall(r"^#{2,3} (\S+)$", PAGE, re.MULTILINE)}
# What a job may say; the other two are the operator's own.
OF_JOBS = sorted(FAILURES - {Reason.DEADLINE_EXCEEDED, Reason.RETRIES_EXHAUSTED})


@pytest.mark.parametrize("reason", OF_JOBS)
def test_every_failure_leads_to_the_section_that_explains_it(World, reason):
    world = World(maxRetries=0)
    world.step()
    world.end_pod(code=1, said=Result(reason=reason, message="This is why."))
    assert (world.succeeded, world.reason) == ("False", reason)
    assert world.message.startswith("This is why. See https://")
    assert world.message.partition("#")[2] in ANCHORS


def failed_by_policy(world):
    world.problems = ("spec.a: wrong",)
    world.step()


def failed_by_deadline(world):
    world.spec["activeDeadlineSeconds"] = 5
    world.step()
    world.run_pod()
    world.later(6)
    world.end_pod(code=75, said=stopped(3))


def failed_by_time_used_up(world):
    world.step()
    world.run_pod()
    world.now += 6
    world.spec["activeDeadlineSeconds"] = 5
    world.end_pod(code=6, said=Result(reason=Reason.STORAGE_UNAVAILABLE, message="No answer"))


def failed_by_retries(world):
    world.spec["maxRetries"] = 1
    world.step()
    world.later(world.end_pod(1, code=1).look_again)
    world.end_pod(2, code=1)


def failed_by_interruptions(world):
    world.step()
    for attempt in range(1, 12):
        decision = world.end_pod(attempt, code=75, said=stopped())
        world.later(decision.look_again or 0)


def failed_without_results(world):
    world.step()
    for attempt in (1, 2, 3):
        world.end_pod(attempt, said="just a log")


def waits_for_a_node(world):
    world.step()
    world.pod(unschedulable="0/1 nodes are available: 1 Insufficient cpu.")
    world.step()


def waits_for_an_image(world):
    world.step()
    world.pod(waiting_reason="ImagePullBackOff", waiting_message="no such image")
    world.step()


def waits_for_a_secret(world):
    world.step()
    world.pod()
    world.warnings["pod-1"] = WarningEvent("FailedMount", 'secret "lmft-s3" not found', world.now)
    world.step()


def waits_for_quota(world):
    world.step()
    world.warnings["job-1"] = WarningEvent("FailedCreate", "exceeded quota: gpus", world.now)
    world.step()


@pytest.mark.parametrize("reason", sorted(set(Reason) - set(OF_JOBS) - {Reason.INTERRUPTED}))
def test_a_job_that_fails_cannot_say_what_is_the_operators_to_say(World, reason):
    world = World()
    world.step()
    world.end_pod(code=1, said=Result(reason=reason, message="Again!"))
    assert (world.reason, world.status.attempts[0].reason, world.status.failures) == ("Retrying", "InternalError", 1)


def test_a_jobs_own_words_are_shown_without_secrets_and_control_characters(World):
    world = World(maxRetries=0)
    world.step()
    words = "token=hf_abcdefghijkl \x1b[2Jrefused"
    world.end_pod(code=6, said=Result(reason=Reason.STORAGE_UNAVAILABLE, message=words))
    assert "hf_abcdefghijkl" not in world.message
    assert "\x1b" not in world.message
    assert "refused" in world.message


SITUATIONS = [
    (failed_by_policy, "InvalidSpec"),
    (failed_by_deadline, "DeadlineExceeded"),
    (failed_by_time_used_up, "DeadlineExceeded"),
    (failed_by_retries, "RetriesExhausted"),
    (failed_by_interruptions, "RetriesExhausted"),
    (failed_without_results, "InternalError"),
    (waits_for_a_node, "Unschedulable"),
    (waits_for_an_image, "ImagePullFailed"),
    (waits_for_a_secret, "SecretNotFound"),
    (waits_for_quota, "QuotaExceeded"),
]


@pytest.mark.parametrize(("happens", "reason"), SITUATIONS)
def test_what_the_operator_itself_finds_leads_there_too(World, happens, reason):
    world = World()
    happens(world)
    assert world.reason == reason
    assert world.message.endswith(f"troubleshooting.md#{reason.lower()}")
    assert reason.lower() in ANCHORS


ENDS = [failed_by_deadline, failed_by_time_used_up, failed_by_retries, failed_by_interruptions, failed_without_results]


@pytest.mark.parametrize("happens", [waits_for_an_image, waits_for_a_secret, waits_for_quota, *ENDS])
def test_what_somebody_has_to_mend_says_how(World, happens):
    world = World()
    happens(world)
    assert REASONS[Reason(world.reason)].remedy in world.message


@pytest.mark.parametrize(
    ("code", "why", "words"),
    [
        (6, Reason.STORAGE_UNAVAILABLE, "StorageUnavailable: s3://x cannot be reached. Retrying after 10 s. See"),
        (75, Reason.INTERRUPTED, "Interrupted: s3://x cannot be reached. Retrying after 10 s. See"),
    ],
)
def test_a_wait_between_attempts_leads_to_what_the_last_one_ended_with(World, code, why, words):
    world = World()
    world.step()
    for attempt in range(1, 5):
        world.end_pod(attempt, code=code, said=Result(reason=why, message="s3://x cannot be reached"))
        if code == 6:
            break
    assert words in world.message
    assert world.message.endswith(f"#{why.lower()}")


def test_without_a_page_messages_lead_nowhere(World):
    world = World()
    world.settings = parse("documentationURL: null")
    failed_by_policy(world)
    assert world.message == "spec.a: wrong"


def test_a_message_too_long_for_the_status_keeps_its_link(World):
    world = World()
    world.problems = ("spec.dataset.textField: " + "x" * 9000,)
    world.step()
    assert len(world.message) <= 4096
    assert world.message.endswith("… See " + world.settings.documentation_url + "#invalidspec")


def test_every_reason_has_a_section():
    assert {reason.value.lower() for reason in Reason} <= ANCHORS


SMALLER = "out of accelerator memory at step 7: perDeviceBatchSize 8 → 4, gradientAccumulationSteps 1 → 2"
SMALLEST = "out of accelerator memory at step 9: perDeviceBatchSize 4 → 2, gradientAccumulationSteps 2 → 4"


def test_a_run_that_went_on_with_a_smaller_batch_says_so(World):
    world = World()
    world.step()
    world.run_pod()
    world.end_pod(said=DONE.model_copy(update={"adjustments": [SMALLER]}))
    assert world.status.attempts[0].adjustments == [SMALLER]
    assert [reason for reason, _ in world.events] == ["Training", "Adjusted", "Completed"]
    assert SMALLER in dict(world.events)["Adjusted"]


def test_what_earlier_attempts_changed_is_not_told_again(World):
    world = World()
    world.step()
    world.end_pod(1, code=75, said=stopped(7).model_copy(update={"adjustments": [SMALLER]}))
    world.end_pod(2, code=75, said=stopped(8).model_copy(update={"adjustments": [SMALLER]}))
    world.end_pod(3, said=DONE.model_copy(update={"adjustments": [SMALLER, SMALLEST]}))
    adjusted = [message for reason, message in world.events if reason == "Adjusted"]
    assert len(adjusted) == 2
    assert SMALLER in adjusted[0]
    assert SMALLER not in adjusted[1]
    assert SMALLEST in adjusted[1]
    assert world.status.attempts[1].adjustments == [SMALLER]


def test_a_batch_of_one_that_does_not_fit_ends_the_run_with_what_was_tried(World):
    world = World()
    world.step()
    why = Result(reason=Reason.ACCELERATOR_OUT_OF_MEMORY, message="Not even a batch of 1.", adjustments=[SMALLER])
    world.end_pod(code=4, said=why)
    assert (world.succeeded, world.reason) == ("False", "AcceleratorOutOfMemory")
    assert world.status.attempts[0].adjustments == [SMALLER]
    assert [reason for reason, _ in world.events] == ["Adjusted", "AcceleratorOutOfMemory"]


@pytest.mark.parametrize("mark", ["\x00", "\x1b", "\x9b", "\u202e", "\ud83d"])
@pytest.mark.parametrize("said", ["the log's {} end", '{{"reason": "Diverged", "message": "the job\'s {} word"}}'])
def test_nothing_that_a_terminal_would_obey_or_utf8_cannot_hold_gets_into_the_status(World, mark, said):
    world = World()
    world.step()
    world.end_pod(code=1, said=said.format(mark))
    assert mark not in world.message
    world.message.encode()
