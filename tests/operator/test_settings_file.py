"""The operator's settings file: what is wrong in it is said, with file and field."""

from pathlib import Path

import pytest

from lmft_operator.settings import SettingsError, load, parse


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("logLevel: verbose", "logLevel: "),
        ("job: {imagePullPolicy: Sometimes}", "job.imagePullPolicy: "),
        ("job: {resources: {memory: lots}}", "job.resources.memory: "),
        ("defaults: {outputUri: 'ftp://models'}", "defaults.outputUri: "),
        ("policy: {perNamespace: {team: {maxGpu: 1}}}", "policy.perNamespace.team.maxGpu: unknown field"),
        ("retries: {initialSeconds: -1}", "retries.initialSeconds: "),
        ("[1]", "the file: "),
    ],
)
def test_a_wrong_field_is_named(text: str, words: str):
    with pytest.raises(SettingsError, match=r"^settings: 1 wrong field\n") as caught:
        parse(text)
    assert f"\n  {words}" in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, tmp_path / "binary", tmp_path / "none"):
        with pytest.raises(SettingsError, match=str(path)):
            load(str(path))


def test_more_idle_interruptions_than_the_status_keeps_attempts_would_be_no_bound():
    assert parse("retries: {maxIdleInterruptions: 31}").retries.max_idle_interruptions == 31
    with pytest.raises(SettingsError, match=r"maxIdleInterruptions"):
        parse("retries: {maxIdleInterruptions: 32}")
