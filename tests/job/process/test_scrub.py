"""What of a mounted Secret is taken out of what a pod says, and what stays."""

import io
import os
from pathlib import Path

import pytest

from lmft_api.reasons import Reason
from lmft_api.status import CheckpointStatus, Results, SampleResult
from lmft_api.wire.result import Counts, Result, decode, encode
from lmft_job.process.secrets import REDACTED, Scrubber

URI = "s3://acme-models-eu-central-1/team-a/runs/eli5-0123abcd"


def scrubber(folder: Path, **keys: str) -> Scrubber:
    secret = folder / "output"
    secret.mkdir(parents=True)
    for name, value in keys.items():
        (secret / name).write_text(value + "\n")
    return Scrubber(folder, {})


def result(text: str = "done") -> Result:
    return Result(
        reason=Reason.COMPLETED,
        message=text,
        results=Results(
            model_uri=f"{URI}/model",
            samples=[SampleResult(prompt=text, before=text), SampleResult(prompt="b", after=text)],
        ),
        checkpoint=CheckpointStatus(step=5, uri=f"{URI}/checkpoints/attempt-0001/step-00000005"),
        counts=Counts(steps=5),
        adjustments=[text],
    )


@pytest.mark.parametrize(
    "key",
    ["AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "region", "bucket", "BUCKET_NAME"],
)
def test_a_setting_beside_the_keys_is_no_secret(tmp_path: Path, key: str) -> None:
    known = scrubber(tmp_path, **{key: "eu-central-1"})

    assert known.scrub(f"there is nothing at {URI}") == f"there is nothing at {URI}"


@pytest.mark.parametrize(
    "key", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "token", "REGION_KEY"]
)
def test_every_other_value_is_one(tmp_path: Path, key: str) -> None:
    assert scrubber(tmp_path, **{key: "averysecretvalue"}).scrub("it is averysecretvalue") == f"it is {REDACTED}"


def test_message_adjustments_and_samples_are_scrubbed_even_where_json_writes_the_value_otherwise(
    tmp_path: Path,
) -> None:
    value = 'very"secret\\value'

    said = decode(encode(scrubber(tmp_path, token=value).result(result(f"key {value} is bad"))).decode())

    assert said == result(f"key {REDACTED} is bad").model_copy(update={"redactions": 5})


@pytest.mark.parametrize("value", ["Completed", "eu-central-1", "checkpoint", '"message"', "perplexity", "acme-models"])
def test_a_value_that_stands_in_an_address_or_in_a_word_of_the_contract_breaks_neither(
    tmp_path: Path, value: str
) -> None:
    assert decode(encode(scrubber(tmp_path, password=value).result(result())).decode()) == result()


def test_what_was_taken_out_does_not_make_the_result_too_long(tmp_path: Path) -> None:
    long = scrubber(tmp_path, password="12345678").result(result("12345678" * 500))

    said = decode(encode(long).decode())

    assert len(encode(long)) <= 4096
    assert said is not None
    assert said.message.startswith(REDACTED)
    assert said.checkpoint == result().checkpoint


KEY = """-----BEGIN PRIVATE KEY-----
MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj
MzEfYyjiWA4R4/M2bS1GB4t7NXp98C3SC6dVMvDuictGeurT8jNbvJZHtCSuYEvu
NMoSfm76oqFvAp8Gy0iz5sxjZmSnXyCdPEovGhLa0VzMaQ8s+CLOyS56YyCFGeJZ
-----END PRIVATE KEY-----"""


def test_a_secret_of_many_lines_is_known_by_line_and_by_part(tmp_path: Path) -> None:
    known = scrubber(tmp_path, tls=KEY)
    lines = KEY.splitlines()
    for quoted in (KEY, lines[2], lines[2][:30], lines[3][20:45], " | ".join(lines[1:4])):
        said = known.scrub(f"it has {quoted} in it")
        assert not any(part in said for part in (lines[2][4:24], lines[3][22:40])), said
        assert said.startswith("it has ")
        assert said.endswith(" in it")
    assert (
        known.scrub("a BEGIN CERTIFICATE, and 16 characters of prose")
        == "a BEGIN CERTIFICATE, and 16 characters of prose"
    )


def test_a_secret_that_rotates_is_known_before_and_after(tmp_path: Path) -> None:
    """As kubelet does it: files are links into a folder whose name changes."""
    secret = tmp_path / "output"
    for number, value in enumerate(("the-first-value", "the-second-value")):
        (secret / f"..{number}").mkdir(parents=True)
        (secret / f"..{number}" / "password").write_text(value)
    (secret / "..data").symlink_to("..0")
    (secret / "password").symlink_to("..data/password")
    known = Scrubber(tmp_path, {})
    assert known.scrub("the-first-value the-second-value") == f"{REDACTED} the-second-value"

    (secret / "..next").symlink_to("..1")
    os.replace(secret / "..next", secret / "..data")

    assert known.scrub("the-first-value the-second-value") == f"{REDACTED} {REDACTED}"
    assert known.replaced == 3


@pytest.mark.parametrize("written", ["a%2Fb%2Bc+d%3De%26f", "a/b+c d=e&f", "a%2Fb%2Bc%20d%3De%26f"])
def test_a_value_is_known_as_an_address_writes_it(written: str, tmp_path: Path) -> None:
    assert scrubber(tmp_path, token="a/b+c d=e&f").scrub(f"GET /?x={written}") == f"GET /?x={REDACTED}"


def test_a_secret_of_the_environment_is_known_and_its_neighbours_are_not(tmp_path: Path) -> None:
    known = Scrubber(None, {"HF_TOKEN": "mytoken1", "WANDB_API_KEY": "mykey123", "HF_TOKEN_PATH": "/tmp/hf/token"})
    assert known.scrub("mytoken1 mykey123 /tmp/hf/token") == f"{REDACTED} {REDACTED} /tmp/hf/token"


def test_a_stream_hides_a_key_that_comes_line_by_line_and_goes_on_after_it(tmp_path: Path) -> None:
    out = io.StringIO()
    stream = Scrubber(None, {}).stream(out)
    text = "before\n" + KEY + "\nafter it\n-----BEGIN PRIVATE KEY----- is a header\nnext line of words\n"
    for line in text.splitlines(keepends=True):
        stream.write(line)
    assert out.getvalue().splitlines() == [
        "before", "-----BEGIN PRIVATE KEY-----", REDACTED, "-----END PRIVATE KEY-----", "after it",
        "-----BEGIN PRIVATE KEY----- is a header", "next line of words",
    ]  # fmt: skip


def test_a_result_counts_what_was_replaced_anywhere(tmp_path: Path) -> None:
    known = scrubber(tmp_path, token="averysecretvalue")
    known.stream(io.StringIO()).write("a traceback with averysecretvalue\n")
    assert known.result(result("averysecretvalue")).redactions == 6
    assert scrubber(tmp_path / "none", token="other").result(result()).redactions is None
