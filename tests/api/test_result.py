"""The termination message: always valid, never too long, the worthiest first."""

import json
import random
from typing import Any

import pytest

from lmft_api.reasons import Reason
from lmft_api.text.wording import ELLIPSIS
from lmft_api.wire.result import MAX_BYTES, Result, decode, encode, flaw, misspelt

ALPHABETS = ["abc ", '"\\/\b\n\t', "äöüß", "日本語", "😀👩‍👩‍👧", "\u0000\u001f\u007f", "\u2028\ufeff"]


def text(generator: random.Random, longest: int) -> str:
    alphabet = generator.choice([*ALPHABETS, "".join(ALPHABETS)])
    return "".join(generator.choice(alphabet) for _ in range(generator.randint(0, longest)))


def random_result(seed: int) -> Result:
    generator = random.Random(seed)
    samples = [
        {"prompt": text(generator, 600), "before": text(generator, 1500), "after": text(generator, 1500)}
        for _ in range(generator.randint(0, 16))
    ]
    return Result.model_validate(
        {
            "reason": generator.choice(list(Reason)),
            "message": text(generator, 4000),
            "results": {
                "perplexity": "49.61",
                "modelURI": "s3://m/" + "m" * generator.randint(0, 900),
                "samples": samples,
            },
            "checkpoint": {"step": 400, "uri": "s3://c/" + "c" * generator.randint(0, 900)},
            "counts": {"steps": 420, "lostSteps": 20},
            "highestAttempt": 7,
            "adjustments": [text(generator, 200) for _ in range(generator.randint(0, 16))],
            "provenance": {"specHash": "a" * 64, "versions": {f"library{n}": "1.2.3" for n in range(32)}},
            "evaluations": [{"step": n, "epoch": "1", "evalLoss": "3.9"} for n in range(generator.randint(0, 200))],
        }
    )


@pytest.mark.parametrize("seed", range(150))
def test_any_result_becomes_valid_json_of_at_most_4096_bytes(seed: int):
    result = random_result(seed)

    message = encode(result)

    assert len(message) <= MAX_BYTES == 4096
    decoded = decode(message.decode())
    assert decoded is not None
    assert decoded.reason == result.reason
    assert decoded.results is not None
    assert decoded.results.perplexity == "49.61"
    assert decoded.results.model_uri == result.results.model_uri
    assert decoded.highest_attempt == 7


@pytest.mark.parametrize("seed", range(0, 150, 7))
def test_what_is_left_out_is_worth_less_than_what_is_kept(seed: int):
    message = json.loads(encode(random_result(seed)))

    kept = [key for key in ("counts", "provenance", "evaluations") if key in message]
    evaluations = message.get("evaluations", [])
    assert kept[:1] == ["counts"]
    assert [entry["step"] for entry in evaluations] == sorted(entry["step"] for entry in evaluations)


def test_a_small_result_is_kept_whole():
    result = Result.parse(
        {
            "reason": "Completed",
            "message": "done",
            "results": {"perplexity": "2", "samples": [{"prompt": "p", "before": "b", "after": "a"}]},
            "evaluations": [{"step": 1, "epoch": "1", "evalLoss": "1"}],
            "provenance": {"seed": 1, "versions": {"torch": "2"}},
        }
    )

    assert decode(encode(result).decode()) == result


def test_long_samples_are_cut_evenly_with_an_ellipsis_and_none_is_lost():
    samples = [{"prompt": f"prompt {n}", "before": "b" * 3000, "after": "a" * 3000} for n in range(8)]

    decoded = decode(encode(Result.parse({"reason": "Completed", "results": {"samples": samples}})).decode())

    assert decoded is not None
    kept = decoded.results.samples
    assert [sample.prompt for sample in kept] == [f"prompt {n}" for n in range(8)]
    assert len({len(part) for sample in kept for part in (sample.before, sample.after)}) == 1
    assert all(sample.after.endswith(ELLIPSIS) and len(sample.after) > 150 for sample in kept)


def test_the_newest_evaluations_are_kept():
    evaluations = [{"step": n, "epoch": "1", "evalLoss": "1"} for n in range(500)]

    kept = json.loads(encode(Result.parse({"reason": "Completed", "evaluations": evaluations})))["evaluations"]

    assert 20 < len(kept) < 500
    assert [entry["step"] for entry in kept] == list(range(500 - len(kept), 500))


def test_the_end_of_a_message_goes_before_its_beginning():
    decoded = decode(encode(Result(reason=Reason.INVALID_SPEC, message="first problem, " + "x" * 5000)).decode())

    assert decoded is not None
    assert decoded.message.startswith("first problem, ")
    assert decoded.message.endswith(ELLIPSIS)


@pytest.mark.parametrize(
    "message",
    [
        "",
        "Traceback (most recent call last):",
        "{",
        '{"reason": 1}',
        '{"reason": "Completed", "format": 2}',
        "[]",
        "null",
        '{"reason": "Completed", "checkpoint": {"step": 3, "uri": "s3://m/3", "time": "yesterday"}}',
        '{"reason": "Completed", "checkpoint": {"step": 3, "uri": "s3://m/3", "time": "2026-13-01T00:00:00Z"}}',
        '{"reason": "Completed", "checkpoint": {"step": 1000000000000000000000000, "uri": "s3://m/3"}}',
        '{"reason": "Completed", "counts": {"steps": -1}}',
        '{"reason": "Completed", "counts": {"totalSteps": 9223372036854775808}}',
        '{"reason": "Completed", "provenance": {"seed": 9223372036854775808}}',
        '{"reason": "Completed", "evaluations": [{"step": -1, "epoch": "1", "evalLoss": "2"}]}',
        '{"reason": "Completed", "results": {"perplexity": NaN}}',
    ],
)
def test_a_message_that_is_no_result_is_none(message: str):
    assert decode(message) is None


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("Traceback (most recent call last):", ""),
        ('{"reason": "Completed"}', ""),
        ('{"reason": "Completed", "format": 2}', "the result has format 2 and was written by a newer release"),
        ('{"message": "done"}', "reason: "),
        ('{"reason": "Completed", "counts": {"steps": -1}}', "counts.steps: "),
        ('{"reason": "Com', "Invalid JSON"),
    ],
)
def test_what_is_wrong_with_a_result_is_told(message: str, words: str):
    found = flaw(message)
    assert found.startswith(words)
    assert bool(found) == bool(words)


def test_what_a_newer_release_adds_is_passed_over():
    newer = (
        '{"reason": "NovelReason", "novel": 1, "results": {"perplexity": "2", "novel": {"a": 1}, "samples": '
        '[{"prompt": "p", "novel": 1}]}, "evaluations": [{"step": 1, "epoch": "1", "evalLoss": "1", "novel": "2"}]}'
    )
    decoded = decode(newer)
    assert decoded is not None
    # The exit code has to do for a reason that is not known.
    assert decoded.reason is None
    assert decoded.results.perplexity == "2"
    assert [evaluation.step for evaluation in decoded.evaluations] == [1]
    assert (flaw(newer), misspelt(newer)) == ("", "")


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ('"results": {"perplexty": "2"}', "results.perplexty is not known; did you mean perplexity?"),
        ('"counts": {"step": 1}', "counts.step is not known; did you mean steps?"),
        ('"mesage": "done"', "mesage is not known; did you mean message?"),
        ('"results": {"perplexity": "2"}', ""),
    ],
)
def test_a_key_that_resembles_ours_is_named(part: str, words: str):
    assert misspelt(f'{{"reason": "Completed", {part}}}') == words


def test_a_result_commands_no_terminal():
    sample = {"prompt": "\u001b]0;title\u0007p\u202e", "after": "a\nb\tc\r\u009bd"}
    decoded = decode(
        json.dumps({"reason": "Completed", "results": {"samples": [sample], "modelURI": "s3://m/\u001b[2J"}})
    )
    assert decoded.results.samples[0].prompt == " ]0;title p "
    assert decoded.results.samples[0].after == "a\nb\tc  d"
    assert decoded.results.model_uri == "s3://m/ [2J"


def test_uris_too_long_for_the_message_do_not_take_the_reason_with_them():
    results: dict[str, Any] = {"perplexity": "2", "modelURI": "s3://" + "m" * 2043, "reportURI": "s3://" + "r" * 2043}

    message = encode(Result.parse({"reason": "Completed", "message": "x" * 900, "results": results}))

    decoded = decode(message.decode())
    assert len(message) <= MAX_BYTES
    assert decoded is not None
    assert decoded.results.perplexity == "2"
