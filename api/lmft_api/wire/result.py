"""The job's last word to the operator: JSON in the container's termination message, at most 4,096 bytes.

kubelet keeps the last 4,096 bytes of a longer message, which would break the JSON; so parts are added in order of
worth and what does not fit is left out or cut. The whole of it is in report.json.
"""

import json
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from lmft_api.reasons import Reason
from lmft_api.schema.types import ApiModel
from lmft_api.status import CheckpointStatus, Count, EvaluationResult, Provenance, Results, SampleResult
from lmft_api.text.shown import printable
from lmft_api.text.wording import did_you_mean, shorten
from lmft_api.wire.versions import FIRST_FORMAT, NewerFormatError, format_check

MAX_BYTES = 4096
MAX_MESSAGE_BYTES = 1600
PROVENANCE_BYTES = 400
"""Kept free by samples: provenance is small, and worth more than the end of a sample."""
SHORTEST_SAMPLE = 8


def _known_reason(value: Any) -> Any:
    return None if isinstance(value, str) and value not in set(Reason) else value


class Counts(ApiModel):
    """Numbers of the attempt."""

    steps: Count | None = None
    """Optimiser steps done."""
    total_steps: Count | None = None
    """Optimiser steps in all."""
    resumed_from_step: Count | None = None
    """Step that the attempt started from."""
    lost_steps: Count | None = None
    """Steps beyond that one which earlier attempts had done, the furthest of them, and which were repeated."""
    tokens_per_second: Count | None = None
    """Training throughput."""


class Result(ApiModel):
    """How an attempt ended."""

    _format = format_check(FIRST_FORMAT, "the result")

    reason: Annotated[Reason | None, BeforeValidator(_known_reason)]
    """From the closed list; Completed when all is well. None stands for one that only a newer release knows: the exit
    code then has to do."""
    message: str = ""
    """For people."""
    results: Results | None = None
    """Figures, samples and addresses."""
    checkpoint: CheckpointStatus | None = None
    """Newest complete checkpoint."""
    counts: Counts | None = None
    """Numbers of the attempt."""
    adjustments: list[Annotated[str, AfterValidator(printable)]] | None = None
    """What the job adjusted in order to continue."""
    highest_attempt: Count | None = None
    """Highest number of an attempt of this run that has begun, as noted in storage, this one included. The next attempt
    takes a number above it: the cluster's own may repeat, after its database was restored to an older snapshot."""
    redactions: Count | None = None
    """How many times the job replaced what is a secret, or looks like one, in what it says; none when it never did."""
    provenance: Provenance | None = None
    """Where the result came from."""
    evaluations: Annotated[list[EvaluationResult], Field()] | None = None
    """Evaluations, oldest first; the newest are kept when space is short."""


_PARTS: dict[tuple[str, ...], type[ApiModel]] = {
    (): Result,
    ("results",): Results,
    ("results", "samples"): SampleResult,
    ("checkpoint",): CheckpointStatus,
    ("counts",): Counts,
    ("provenance",): Provenance,
    ("evaluations",): EvaluationResult,
}


def encode(result: Result) -> bytes:
    """The result in at most 4,096 bytes of valid JSON, filled in the order of worth."""
    whole = result.to_json()
    results = whole.get("results", {})
    samples = results.pop("samples", [])
    body: dict[str, Any] = {"reason": whole["reason"]}
    if "highestAttempt" in whole:
        body["highestAttempt"] = whole["highestAttempt"]
    for key, value in results.items():
        body = _with(body, "results", {**body.get("results", {}), key: value})
    body["message"] = _longest(
        whole.get("message", ""),
        lambda text: len(_dump(text)) <= MAX_MESSAGE_BYTES and _fits({**body, "message": text}),
    )
    for key in ("checkpoint", "counts", "redactions", "adjustments"):
        if key in whole:
            body = _with(body, key, whole[key])
    if cut := _cut_samples(body, samples):
        body["results"] = {**body.get("results", {}), "samples": cut}
    provenance = whole.get("provenance", {})
    body = _with(body, "provenance", {key: value for key, value in provenance.items() if key != "versions"})
    body = _with(body, "provenance", provenance)
    kept: list[dict[str, Any]] = []
    for evaluation in reversed(whole.get("evaluations", [])):
        if not _fits({**body, "evaluations": [evaluation, *kept]}):
            break
        kept.insert(0, evaluation)
    return _dump(_with(body, "evaluations", kept))


def decode(message: str) -> Result | None:
    """The result in a termination message, or None when it holds something else (last lines of a log, nothing).

    Keys that only a newer release knows are passed over. What is decoded fits the status: the API server would refuse
    all of a status for one number that it cannot store.
    """
    try:
        return Result.model_validate_json(message, extra="ignore")
    except (ValidationError, NewerFormatError):
        return None


def flaw(message: str) -> str:
    """What is wrong with a termination message that should be a result and is none; empty for words of another kind."""
    if not message.lstrip().startswith("{"):
        return ""
    try:
        Result.model_validate_json(message, extra="ignore")
    except NewerFormatError as problem:
        return str(problem)
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        return f"{where}: {first['msg']}" if where else first["msg"]
    return ""


def misspelt(message: str) -> str:
    """Which keys of a result were passed over though they resemble a known one; empty where none does.

    A newer release's keys are passed over in silence; an image of somebody's own may have misspelt one of ours.
    """
    try:
        Result.model_validate_json(message)
    except NewerFormatError:
        return ""
    except ValidationError as problem:
        places = [error["loc"] for error in problem.errors(include_url=False) if error["type"] == "extra_forbidden"]
        return ", ".join(
            f"{'.'.join(map(str, place))} is not known{hint}" for place in places if (hint := _hint(place))
        )
    return ""


def _hint(place: tuple[int | str, ...]) -> str:
    """The key of ours that an unknown one resembles, in words; empty where there is none."""
    *above, name = (str(part) for part in place if isinstance(part, str))
    part = _PARTS.get(tuple(above))
    keys = [field.alias or own for own, field in part.model_fields.items()] if part else []
    return did_you_mean(name, keys)


def _cut_samples(body: dict[str, Any], samples: list[dict[str, str]]) -> list[dict[str, str]]:
    """All samples with their texts cut to one common length, or as many as fit when even that is too short."""

    def cut(count: int, length: int) -> list[dict[str, str]]:
        return [{key: shorten(text, length) for key, text in sample.items()} for sample in samples[:count]]

    def fits(count: int, length: int) -> bool:
        results = {**body.get("results", {}), "samples": cut(count, length)}
        return _fits({**body, "results": results}, reserve=PROVENANCE_BYTES)

    longest = max((len(text) for sample in samples for text in sample.values()), default=0)
    for count in range(len(samples), 0, -1):
        if fits(count, SHORTEST_SAMPLE):
            return cut(count, _largest(SHORTEST_SAMPLE, longest, partial(fits, count)))
    return []


def _with(body: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The body with one more part, or as it was when the part is empty or does not fit."""
    wider = {**body, key: value}
    return wider if value and _fits(wider) else body


def _longest(text: str, fits: Callable[[str], bool]) -> str:
    """As much of the beginning of a text as fits."""
    length = _largest(0, len(text), lambda length: fits(shorten(text, length)))
    return shorten(text, length)


def _largest(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to ``high`` that fits; ``low`` is taken for granted."""
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _fits(body: dict[str, Any], reserve: int = 0) -> bool:
    return len(_dump(body)) <= MAX_BYTES - reserve


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
