"""Arithmetic on the status: bounds, merges, the smallest patch."""

import itertools
import json

import pytest

from lmft_api.reasons import Phase, Reason
from lmft_api.result import Result
from lmft_api.status import (
    MAX_CONDITIONS,
    MAX_EVALUATIONS_KEPT,
    Attempt,
    CheckpointStatus,
    ConditionStatus,
    EvaluationResult,
    LMFineTuneStatus,
    Provenance,
    Results,
)
from lmft_operator import status
from lmft_operator.facts import seconds
from lmft_operator.verdict import judge, last_words, scrub

NOW = 1_800_000_000.0


def evaluation(step: int) -> EvaluationResult:
    return EvaluationResult(step=step, epoch="1", eval_loss="2.5")


PATCHES = [
    ({}, {}, {}),
    ({"a": 1}, {"a": 1}, {}),
    ({"a": 1}, {"a": 2}, {"a": 2}),
    ({"a": 1}, {}, {"a": None}),
    ({}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, {"a": {"c": None}}),
    ({"a": {"b": 1}}, {"a": {"b": 2}}, {"a": {"b": 2}}),
    ({"a": [1, 2]}, {"a": [1]}, {"a": [1]}),
    ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 1}}}, {}),
]


@pytest.mark.parametrize(("before", "after", "patch"), PATCHES)
def test_a_patch_holds_what_differs_and_no_more(before, after, patch):
    assert status.merge_patch(before, after) == patch


@pytest.mark.parametrize("count", [1, 64, 65, 100, 1000])
def test_evaluations_are_thinned_evenly_and_keep_first_and_last(count):
    kept = status.merged_evaluations([], [evaluation(step) for step in range(count)])
    assert len(kept) <= MAX_EVALUATIONS_KEPT
    assert (kept[0].step, kept[-1].step) == (0, count - 1)
    gaps = {b.step - a.step for a, b in itertools.pairwise(kept[:-1])}
    assert len(gaps) <= 1


def test_a_repeated_evaluation_takes_the_place_of_the_first():
    kept = status.merged_evaluations([evaluation(1), evaluation(2)], [evaluation(2), evaluation(3)])
    assert [entry.step for entry in kept] == [1, 2, 3]


def test_transition_time_moves_only_with_the_status():
    first = status.with_condition(
        LMFineTuneStatus(), ConditionStatus.UNKNOWN, Reason.PENDING, "a", Phase.PENDING, NOW, 1
    )
    second = status.with_condition(first, ConditionStatus.UNKNOWN, Reason.TRAINING, "b", Phase.TRAINING, NOW + 9, 1)
    third = status.with_condition(second, ConditionStatus.TRUE, Reason.COMPLETED, "c", Phase.SUCCEEDED, NOW + 20, 2)
    times = [s.succeeded.last_transition_time for s in (first, second, third)]
    assert times == ["2027-01-15T08:00:00Z", "2027-01-15T08:00:00Z", "2027-01-15T08:00:20Z"]
    assert len(third.conditions) == 1
    assert third.observed_generation == 2


def test_a_condition_of_somebody_else_stays():
    foreign = {"type": "Approved", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "x"}
    before = status.parse(json.dumps({"conditions": [foreign]}))
    after = status.with_condition(before, ConditionStatus.UNKNOWN, Reason.PENDING, "a", Phase.PENDING, NOW, 1)
    assert [c.type for c in after.conditions] == ["Approved", "Succeeded"]


def test_the_newest_attempts_are_kept():
    seen = LMFineTuneStatus()
    for number in range(1, 50):
        seen = status.with_attempt(seen, Attempt(number=number, job=f"j-{number}"))
    assert [a.number for a in seen.attempts] == list(range(18, 50))


def test_a_result_adds_and_does_not_take_away():
    before = LMFineTuneStatus(
        results=Results(perplexity="9", model_uri="s3://m"),
        provenance=Provenance(image="ours", seed=1),
        checkpoint=CheckpointStatus(step=50, uri="s3://c/50"),
    )
    said = Result(
        reason=Reason.INTERRUPTED,
        results=Results(perplexity="8"),
        provenance=Provenance(model_revision="abc"),
        checkpoint=CheckpointStatus(step=40, uri="s3://c/40"),
    )
    after = status.with_result(before, said, complete=False)
    assert (after.results.perplexity, after.results.model_uri) == ("8", "s3://m")
    assert (after.provenance.image, after.provenance.model_revision) == ("ours", "abc")
    assert after.checkpoint.step == 50
    assert after.progress is None


def test_a_status_of_another_version_is_read_as_far_as_it_can_be():
    seen = status.parse(json.dumps({"phase": "Nonsense", "failures": 2, "newField": 1, "model": "gpt2"}))
    assert (seen.phase, seen.failures, seen.model) == (None, 2, "gpt2")


def test_a_status_survives_its_own_round_trip():
    whole = {"failures": 1, "results": {"modelURI": "s3://m", "perplexity": "8.5"}, "phase": "Failed"}
    assert status.parse(json.dumps(whole)).to_json() == whole


SECRETS = [
    ("token hf_abcdefghijklmnop end", "hf_abcdefghijklmnop"),
    ("key AKIAABCDEFGHIJKLMNOP", "AKIAABCDEFGHIJKLMNOP"),
    ("at https://user:hunter2@host/x", "hunter2"),
    ("aws_secret_access_key=abc/def+ghi", "abc/def+ghi"),
    ('{"password": "hunter2"}', "hunter2"),
    ("Authorization: Bearer abc.def", "abc.def"),
]


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_credentials_in_last_words_become_stars(text, secret):
    assert secret not in scrub(text)
    assert "***" in scrub(text)


def test_ordinary_words_stay():
    text = "Tokens per second: 1630; the tokenizer has 50257 tokens."
    assert scrub(text) == text


def test_last_words_are_one_bounded_line():
    words = last_words("\x1b[31mfirst\n\n" + "x" * 5000 + "\nlast line\n")
    assert len(words) <= 1200
    assert words.endswith("last line")
    assert "\n" not in words


def test_no_pod_and_no_job_is_an_interruption():
    assert judge(None, None, NOW).reason == Reason.INTERRUPTED


def test_conditions_of_others_leave_room_for_ours():
    others = [
        {"type": f"X{n}", "status": "True", "reason": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        for n in range(MAX_CONDITIONS)
    ]
    before = LMFineTuneStatus.parse({"conditions": others})
    after = status.with_condition(before, ConditionStatus.UNKNOWN, Reason.PENDING, "", Phase.PENDING, NOW, 1)
    assert len(after.conditions) == MAX_CONDITIONS
    assert after.reason == Reason.PENDING


@pytest.mark.parametrize("time", ["0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "", None])
def test_a_time_that_python_does_not_know_is_none(time):
    assert seconds(time) is None
