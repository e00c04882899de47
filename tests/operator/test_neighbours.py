"""An operator of this release and a job image of a neighbouring one: run files either way, results back."""

import json
from typing import Any

import pytest
from pydantic import ValidationError
from support import release

from lmft_api.manifest.validation import parse_spec
from lmft_api.reasons import Reason
from lmft_api.wire.result import Result
from lmft_api.wire.run_file import RUN_FILE_FORMAT, RunFile, Stage
from lmft_api.wire.versions import NewerFormatError
from lmft_operator.domain.facts import run_facts
from lmft_operator.domain.plan import Plan
from lmft_operator.jobs import manifest
from lmft_operator.settings import parse

KEYS_OF_0_1 = {
    "name", "namespace", "uid", "attempt", "stage", "allowUserCode", "allowRemoteCode", "resumeModelUri", "image",
    "graceSeconds", "spec",
}  # fmt: skip
"""Keys of a run file that release 0.1 knows; it refuses any other."""


def written(settings: str = "{}", **spec: Any) -> dict[str, Any]:
    """The run file of today's operator, for the manifest of the golden files."""
    body = release.FIRST.manifest("run")
    known, chart = parse_spec(body["spec"] | spec), parse(settings)
    plan = Plan("run-1", 1, Stage.TRAIN, 0)
    rules = chart.policy.for_namespace("team")
    job = manifest.build(plan, run_facts(body), manifest.with_defaults(known, chart), chart, rules, None)
    file: dict[str, Any] = json.loads(job["spec"]["template"]["metadata"]["annotations"]["lmfinetune.dev/run"])
    return file


def test_an_image_of_release_0_1_takes_a_run_file_that_holds_nothing_new() -> None:
    file = written()
    assert set(file) <= KEYS_OF_0_1
    assert None not in file.values()
    before = json.loads(release.FIRST.run_file("run", 3))
    assert {name: value for name, value in file.items() if name not in ("attempt", "image")} == {
        name: value for name, value in before.items() if name not in ("attempt", "image")
    }


@pytest.mark.parametrize("uris", ["[s3://models/*]", "[]"])
def test_it_refuses_a_limit_that_it_would_not_keep(uris: str) -> None:
    file = written(f"policy: {{sources: {{uris: {uris}}}}}")
    assert set(file) - KEYS_OF_0_1 == {"format", "sourcePatterns"}
    # and the images that know the limit know the format that says so
    assert file["format"] == RUN_FILE_FORMAT
    assert RunFile.model_validate(file, strict=False).source_patterns == file["sourcePatterns"]


@pytest.mark.parametrize("left", release.RELEASES, ids=[one.name for one in release.RELEASES])
def test_the_run_files_of_an_older_operator_mean_the_same_with_keys_of_a_newer_one(left: release.Release) -> None:
    for attempt in range(1, len(left.jobs("run")) + 1):
        body = json.loads(left.run_file("run", attempt))
        newer = json.dumps(body | {"keyOfANewerRelease": {"a": [1]}})
        assert RunFile.model_validate_json(newer) == RunFile.model_validate_json(json.dumps(body))


def test_an_attempt_that_needs_a_newer_image_is_no_failure_of_the_run(World: Any) -> None:
    world = World(maxRetries=0)
    world.step()
    words = "the run file has format 9 and was written by a newer release"
    world.end_pod(code=75, said=Result(reason=Reason.INTERRUPTED, message=words))
    # the next attempt takes the image that the chart names by then
    assert len(world.created) == 2
    first = world.status.attempts[0]
    assert (world.succeeded, first.reason) == ("Unknown", Reason.INTERRUPTED)
    assert words in first.message


@pytest.mark.parametrize(
    ("code", "reason"), [(3, Reason.STORAGE_ACCESS_DENIED), (5, Reason.DIVERGED), (1, Reason.INTERNAL_ERROR)]
)
def test_of_a_reason_that_only_a_newer_image_knows_the_exit_code_tells(World: Any, code: int, reason: Reason) -> None:
    world = World(maxRetries=0)
    world.step()
    world.end_pod(code=code, said='{"reason": "NovelReason", "message": "something novel", "novel": 1}')
    assert (world.succeeded, world.reason) == ("False", reason)
    assert "something novel" in world.message


def test_a_key_that_an_image_of_ones_own_misspelt_is_named(World: Any) -> None:
    world = World(preparation="Inline")
    world.step()
    world.end_pod(code=0, said='{"reason": "Completed", "message": "three epochs", "results": {"perplexty": "2"}}')
    assert (world.succeeded, world.reason) == ("True", Reason.COMPLETED)
    assert (
        "three epochs (of the job's result, results.perplexty is not known; did you mean perplexity?)" in world.message
    )


@pytest.mark.parametrize("place", ["", "training", "output"])
def test_an_unknown_key_of_the_spec_is_an_error(place: str) -> None:
    file = written()
    (file["spec"][place] if place else file["spec"])["epoch"] = 3
    with pytest.raises(ValidationError, match="epoch"):
        RunFile.model_validate_json(json.dumps(file))


def test_a_run_file_that_only_a_newer_image_can_follow_is_refused_before_anything_else_of_it() -> None:
    with pytest.raises(NewerFormatError, match=r"has format 3 .* reads up to 2\. Run it with the image"):
        RunFile.model_validate_json('{"format": 3, "run": {"of": "another shape"}}')


@pytest.mark.parametrize("given", ['"2"', "0", "2.5", "true", "null"])
def test_a_format_is_a_number(given: str) -> None:
    with pytest.raises(ValidationError, match="format is not a number from 1"):
        RunFile.model_validate_json(f'{{"format": {given}}}')
