"""Arithmetic on the status: bounds, merges, the smallest patch."""

import itertools
import json

import pytest
from support.results import DONE

from lmft_api.reasons import Phase, Reason
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
from lmft_api.status.reading import read_status
from lmft_api.text.times import seconds
from lmft_api.wire.result import Result
from lmft_operator.decide.judge import judge, log_tail, scrub
from lmft_operator.status import edit
from lmft_operator.status.change import change

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
    assert edit.merge_patch(before, after) == patch


@pytest.mark.parametrize("count", [1, 64, 65, 100, 1000])
def test_evaluations_are_thinned_evenly_and_keep_first_and_last(count):
    kept = edit.merged_evaluations([], [evaluation(step) for step in range(count)])
    assert len(kept) <= MAX_EVALUATIONS_KEPT
    assert (kept[0].step, kept[-1].step) == (0, count - 1)
    gaps = {b.step - a.step for a, b in itertools.pairwise(kept[:-1])}
    assert len(gaps) <= 1


def test_a_repeated_evaluation_takes_the_place_of_the_first():
    kept = edit.merged_evaluations([evaluation(1), evaluation(2)], [evaluation(2), evaluation(3)])
    assert [entry.step for entry in kept] == [1, 2, 3]


def test_transition_time_moves_only_with_the_status():
    first = edit.with_condition(LMFineTuneStatus(), ConditionStatus.UNKNOWN, Reason.PENDING, "a", Phase.PENDING, NOW, 1)
    second = edit.with_condition(first, ConditionStatus.UNKNOWN, Reason.TRAINING, "b", Phase.TRAINING, NOW + 9, 1)
    third = edit.with_condition(second, ConditionStatus.TRUE, Reason.COMPLETED, "c", Phase.SUCCEEDED, NOW + 20, 2)
    times = [s.succeeded.last_transition_time for s in (first, second, third)]
    assert times == ["2027-01-15T08:00:00Z", "2027-01-15T08:00:00Z", "2027-01-15T08:00:20Z"]
    assert len(third.conditions) == 2
    assert third.observed_generation == 2


def test_a_condition_of_somebody_else_stays():
    foreign = {"type": "Approved", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "x"}
    before = read_status(json.dumps({"conditions": [foreign]}))
    after = edit.with_condition(before, ConditionStatus.UNKNOWN, Reason.PENDING, "a", Phase.PENDING, NOW, 1)
    assert [c.type for c in after.conditions] == ["Approved", "Succeeded", "Finished"]


def test_the_newest_attempts_are_kept():
    seen = LMFineTuneStatus()
    for number in range(1, 50):
        seen = edit.with_attempt(seen, Attempt(number=number, job=f"j-{number}"))
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
    after = edit.with_result(before, said, complete=False)
    assert (after.results.perplexity, after.results.model_uri) == ("8", "s3://m")
    assert (after.provenance.image, after.provenance.model_revision) == ("ours", "abc")
    assert after.checkpoint.step == 50
    assert after.progress is None


def test_a_status_of_another_version_is_read_as_far_as_it_can_be():
    seen = read_status(json.dumps({"phase": "Nonsense", "failures": 2, "newField": 1, "model": "gpt2"}))
    assert (seen.phase, seen.failures, seen.model) == (None, 2, "gpt2")


OLD = {"number": 1, "job": "r-1", "endTime": "2027-01-15T08:00:00Z", "reason": "StorageUnavailable"}
NEWER = [
    {"attempts": [OLD | {"node": {"name": "n", "gpus": ["H100"]}}]},
    {"attempts": [OLD | {"exitCode": "6"}]},
    {"attempts": [OLD | {"cause": "x" * 300, "adjustments": ["y" * 5000] * 17}]},
    {"attempts": [OLD], "phase": "Queued", "energy": {"joules": 3}},
    {"attempts": [{"number": n, "job": "r"} for n in range(-40, 1)] + [OLD]},
]


@pytest.mark.parametrize("newer", NEWER)
def test_attempts_that_a_newer_release_wrote_count_once(World, newer):
    # given a run whose first attempt failed, in the words of a release that comes after this one
    world = World(maxRetries=2)
    world.step()
    world.end_pod(code=6, said="x")
    stored = world.status.to_json() | newer
    world.status = read_status(json.dumps(stored))
    # when this one goes on with it
    world.later(3600)
    world.step()
    # then the attempt is known, and its failure is the one that was counted
    assert [a.number for a in world.status.attempts][-2:] == [1, 2]
    assert (world.status.failures, len(world.created)) == (1, 2)


def test_what_a_newer_release_wrote_stays_in_what_this_one_writes():
    stored = {
        "failures": 1,
        "energy": {"joules": 3},
        "usage": {"seconds": 3, "joules": 3},
        "attempts": [OLD | {"node": {"name": "n"}}, {"number": 2, "job": "r-2", "exitCode": "new", "gpus": 1}],
        "conditions": [{"type": "Approved", "status": "Maybe"}],
        "evaluations": [{"step": 1, "epoch": "1", "evalLoss": "2", "bleu": "0.3"}],
    }
    seen = read_status(json.dumps(stored))
    after = edit.with_attempt(seen, Attempt(number=3, job="r-3"))
    after = edit.with_condition(after, ConditionStatus.UNKNOWN, Reason.PENDING, "a", Phase.PENDING, NOW, 1)
    after = change(after, evaluations=[*seen.evaluations, evaluation(2)])

    patch = edit.patch(json.dumps(stored), seen, after)

    assert patch["attempts"] == [*stored["attempts"], {"number": 3, "job": "r-3"}]
    assert patch["conditions"][0] == stored["conditions"][0]
    assert [c["type"] for c in patch["conditions"]] == ["Approved", "Succeeded", "Finished"]
    assert [e.get("bleu") for e in patch["evaluations"]] == ["0.3", None]
    assert not {"energy", "usage", "failures"} & patch.keys()


def test_what_cannot_be_read_is_cut_out_with_as_little_around_it_as_may_be():
    stored = {
        "results": {"perplexity": "8.5", "accuracy": 0.9, "samples": [{"prompt": "p", "after": ["x"]}, {"after": "y"}]},
        "checkpoint": {"step": -1, "uri": "s3://m"},
        "provenance": {"versions": {str(number): "1" for number in range(40)}, "image": "i"},
    }
    seen = read_status(json.dumps(stored)).to_json()
    assert seen["results"] == {"perplexity": "8.5", "samples": [{"prompt": "p"}]}
    assert "checkpoint" not in seen
    assert (len(seen["provenance"]["versions"]), seen["provenance"]["image"]) == (32, "i")


@pytest.mark.parametrize(
    "text", ["[1]", '"x"', "null", '{"attempts": {"a": 1}}', '{"conditions": [[]], "attempts": 1}']
)
def test_nonsense_is_an_empty_status(text):
    assert (read_status(text).attempts or [], read_status(text).conditions or []) == ([], [])


def test_finished_is_true_at_either_end_with_the_reason_and_false_before_and_when_the_run_goes_on():
    seen = LMFineTuneStatus()
    found = []
    for state, reason in (
        (ConditionStatus.UNKNOWN, Reason.TRAINING),
        (ConditionStatus.FALSE, Reason.RETRIES_EXHAUSTED),
        (ConditionStatus.UNKNOWN, Reason.PENDING),
        (ConditionStatus.TRUE, Reason.COMPLETED),
    ):
        seen = edit.with_condition(seen, state, reason, "words", Phase.TRAINING, NOW, 1)
        found += [(c.status.value, c.reason) for c in seen.conditions if c.type == "Finished"]
    assert found == [("False", "Training"), ("True", "RetriesExhausted"), ("False", "Pending"), ("True", "Completed")]


DISPLAYED = [
    ({"perplexity": "49.61"}, "perplexity 49.61"),
    ({"accuracy": "0.9100", "evalLoss": "0.3"}, "accuracy 0.91"),
    ({"accuracy": "0.9123"}, "accuracy 0.9123"),
    ({"accuracy": "1.0000"}, "accuracy 1"),
    ({"evalLoss": "2.5000"}, "loss 2.5000"),
    ({"baselinePerplexity": "62.30", "modelURI": "s3://m"}, None),
]


@pytest.mark.parametrize(("results", "display"), DISPLAYED)
def test_the_result_in_short_is_what_the_task_is_measured_by(results, display):
    assert edit.displayed(Results.parse(results)) == display


def test_an_image_of_the_users_own_cannot_word_the_result():
    said = Result(reason=Reason.COMPLETED, results=Results(display="perplexity 1", perplexity="8.5"))
    seen = edit.with_result(LMFineTuneStatus(), said, complete=True)
    assert seen.results.display == "perplexity 8.5"


def test_a_run_that_an_earlier_release_ended_gets_what_is_new(World):
    world = World()
    world.step()
    world.end_pod(said=DONE)
    old = world.status.to_json()
    old["conditions"] = [c for c in old["conditions"] if c["type"] == "Succeeded"]
    del old["results"]["display"]
    world.status = read_status(json.dumps(old))
    world.step()
    assert [(c.type, c.status, c.reason) for c in world.status.conditions] == [
        ("Succeeded", "True", "Completed"), ("Finished", "True", "Completed"),
    ]  # fmt: skip
    assert world.status.results.display == "perplexity 49.6"
    writes = world.writes
    world.step()
    assert world.writes == writes


def test_a_status_survives_its_own_round_trip():
    whole = {"failures": 1, "results": {"modelURI": "s3://m", "perplexity": "8.5"}, "phase": "Failed"}
    assert read_status(json.dumps(whole)).to_json() == whole


SECRETS = [
    ("token hf_abcdefghijklmnopqrstuvwxyz01234567 end", "hf_abcdefghijklmnopqrstuvwxyz01234567"),
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
    words = log_tail("\x1b[31mfirst\n\n" + "x" * 5000 + "\nlast line\n")
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
    after = edit.with_condition(before, ConditionStatus.UNKNOWN, Reason.PENDING, "", Phase.PENDING, NOW, 1)
    assert len(after.conditions) == MAX_CONDITIONS
    assert after.reason == Reason.PENDING


@pytest.mark.parametrize("time", ["0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "", None])
def test_a_time_that_python_does_not_know_is_none(time):
    assert seconds(time) is None
