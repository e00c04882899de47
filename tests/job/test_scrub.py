"""What of a mounted Secret is taken out of what a pod says, and what stays."""

from pathlib import Path

import pytest

from lmft_api.reasons import Reason
from lmft_api.result import Counts, Result, decode, encode
from lmft_api.status import CheckpointStatus, Results, SampleResult
from lmft_job.scrub import REDACTED, Scrubber

URI = "s3://acme-models-eu-central-1/team-a/runs/eli5-0123abcd"


def scrubber(folder: Path, **keys: str) -> Scrubber:
    secret = folder / "output"
    secret.mkdir()
    for name, value in keys.items():
        (secret / name).write_text(value + "\n")
    return Scrubber(folder)


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

    assert said == result(f"key {REDACTED} is bad")


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
