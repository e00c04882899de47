"""Which rank's code and words a pod ends with: an order of causes, not of clocks."""

import pytest

from lmft_api.reasons import ExitCode, Reason
from lmft_api.wire.result import Counts, Result
from lmft_job.pod.messages import Cause
from lmft_job.pod.plan import PodPlan
from lmft_job.pod.verdict import Ended, Outcome, RankExit, Seen, conclude, missing, tells

FIRST = PodPlan(nodes=2, index=0, per_node=2, pod="toy-0", node="gpu-a")
SECOND = PodPlan(nodes=2, index=1, per_node=2, pod="toy-1", node="gpu-b")
ONLY = PodPlan(nodes=1, index=0, per_node=2, pod="toy", node="gpu-a")
ECHO = Result(reason=Reason.PEERS_MISSING, message="the connection to another rank was lost: reset")
LOST = Cause(1, "rank 3 (pod toy-1, node gpu-b) was killed by SIGKILL (exit 137)", Reason.INTERNAL_ERROR, 137, True)
UNREACHED = Cause(1, "policy: no answer", Reason.NETWORK_UNREACHABLE, 8, True)


def said(reason: Reason, message: str = "said") -> Result:
    return Result(reason=reason, message=message)


INVALID = Ended(1, 2, said(Reason.DATASET_INVALID, "spec.dataset: empty"))
ECHOES = Ended(0, 8, ECHO)
BROKEN = Ended(1, 1, said(Reason.INTERNAL_ERROR))


@pytest.mark.parametrize(
    ("ended", "code", "reason", "words"),
    [
        pytest.param([ECHOES, INVALID], 2, "DatasetInvalid", "empty. Seen by rank 1 (pod toy", id="cause before echo"),
        pytest.param([Ended(0, -9), INVALID], 2, "DatasetInvalid", "empty", id="final before a kill"),
        pytest.param([Ended(0, -9, ours=True), BROKEN], 1, "InternalError", "Seen by rank 1", id="not our own kill"),
        pytest.param([BROKEN, Ended(0, -9)], 137, "InternalError", "rank 0 (pod toy, node gpu-a) was killed by",
                     id="a kill before a crash"),
        pytest.param([Ended(0, -11), Ended(1, 75)], 139, "InternalError", "by SIGSEGV (exit 139)", id="crash"),
        pytest.param([Ended(0, RankExit.WAITING, said(Reason.HUNG)), Ended(1, 7, said(Reason.HUNG, "at step 3"))], 7,
                     "Hung", "at step 3. Seen by rank 1", id="who hangs before who waits"),
        pytest.param([Ended(0, RankExit.WAITING, said(Reason.HUNG, "waits")), Ended(1, -9, ours=True)], 7, "Hung",
                     "waits. Seen by rank 0", id="all wait"),
        pytest.param([Ended(0, 13), Ended(1, -9, ours=True)], 13, "InternalError", "rank 0 (pod toy, node gpu-a) ended",
                     id="no message"),
        pytest.param([Ended(1, 75, said(Reason.INTERRUPTED)), ECHOES], 75, "Interrupted", "said", id="stop over echo"),
        pytest.param([Ended(0, 0, said(Reason.COMPLETED)), BROKEN], 0, "Completed", "said", id="done is done"),
        pytest.param([ECHOES, Ended(1, 8, ECHO)], 8, "PeersMissing", "another rank was lost: reset", id="echoes alone"),
    ],
)  # fmt: skip
def test_a_pod_ends_with_its_first_cause(ended: list[Ended], code: int, reason: str, words: str) -> None:
    for order in (ended, ended[::-1]):
        outcome = conclude(Seen(order), ONLY)
        assert (outcome.code, str(outcome.result.reason)) == (code, reason)
        assert words in outcome.result.message
        assert not outcome.restart


def test_what_all_ranks_say_is_no_ranks_own() -> None:
    both = [Ended(rank, 2, said(Reason.INVALID_SPEC, "spec.model.name: is empty")) for rank in (0, 1)]

    assert conclude(Seen(both), ONLY).result.message == "spec.model.name: is empty"


def test_without_a_cause_of_its_own_a_pod_names_the_others() -> None:
    killed = [Ended(0, 8, ECHO), Ended(1, -9, ours=True)]

    assert conclude(Seen(killed, LOST), FIRST) == Outcome(8, Result(reason=Reason.PEERS_MISSING, message=LOST.words))
    assert conclude(Seen(killed, UNREACHED), FIRST).result.reason == Reason.NETWORK_UNREACHABLE
    # and with one of its own it does not
    assert conclude(Seen([INVALID], LOST), SECOND).code == 2


def test_a_stop_that_ranks_did_not_survive_is_a_stop_but_not_where_another_pod_has_a_cause() -> None:
    killed = [Ended(0, -9, ours=True), Ended(1, -9, ours=True)]

    assert conclude(Seen(killed, stopping=True), ONLY).code == ExitCode.INTERRUPTED
    assert conclude(Seen(killed, LOST, stopping=True), FIRST).code == ExitCode.PEERS


def test_a_shortage_starts_one_pod_again_and_ends_several_as_interrupted() -> None:
    short = Ended(1, RankExit.RESTART, Result(reason=Reason.INTERRUPTED, message="4 → 2", adjustments=["4 → 2"]))

    assert conclude(Seen([ECHOES, short]), ONLY).restart
    ended = conclude(Seen([ECHOES, short]), SECOND)
    assert (ended.code, ended.restart, ended.result.adjustments) == (75, False, ["4 → 2"])
    assert tells(short, SECOND).at_once


def test_the_result_is_the_first_pods() -> None:
    counted = Result(reason=Reason.INTERRUPTED, message="stopped", counts=Counts(steps=5))

    assert conclude(Seen([Ended(0, 75, counted), Ended(1, 75)]), FIRST).result.counts == Counts(steps=5)
    assert conclude(Seen([Ended(2, 75, counted), Ended(3, 75)]), SECOND).result == said(Reason.INTERRUPTED, "stopped")
    assert conclude(Seen([Ended(2, 0), Ended(3, 0)]), SECOND).result.reason == Reason.COMPLETED
    # Rank 0 alone knows of counts, whichever rank is the cause.
    failed = conclude(Seen([Ended(0, 8, counted), BROKEN]), FIRST)
    assert (failed.code, failed.result.counts) == (1, Counts(steps=5))


def test_a_kill_for_want_of_memory_says_so() -> None:
    outcome = conclude(Seen([Ended(0, -9), Ended(1, -9, ours=True)], out_of_memory=True), ONLY)

    assert (outcome.code, outcome.result.reason) == (137, Reason.OUT_OF_MEMORY)
    assert "rank 0 (pod toy, node gpu-a)" in outcome.result.message
    assert "raise spec.resources.memory" in outcome.result.message


def test_pods_that_have_not_come_are_named() -> None:
    plan = PodPlan(nodes=4, index=0, per_node=1, rendezvous=600, pod="toy-0")

    cause = missing({2: "here"}, plan)

    assert cause is not None
    assert cause.words.startswith("pods 1 and 3 of the attempt have not come within 600 seconds: 2 of 4.")
    assert (cause.reason, cause.code) == (Reason.PEERS_MISSING, 8)
    assert missing({1: "", 2: "", 3: ""}, plan) is None
