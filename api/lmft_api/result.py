"""The job's last word to the operator: JSON in the container's termination message, at most 4,096 bytes.

kubelet keeps the last 4,096 bytes of a longer message, which would break the JSON; so parts are added in order of
worth and what does not fit is left out or cut. The whole of it is in report.json.
"""

import json
from typing import Annotated, Any

from pydantic import Field, ValidationError

from lmft_api.base import ApiModel
from lmft_api.reasons import Reason
from lmft_api.status import CheckpointStatus, EvaluationResult, Provenance, Results

MAX_BYTES = 4096
MAX_MESSAGE = 1200
ELLIPSIS = "…"


class Counts(ApiModel):
    """Numbers of the attempt."""

    steps: int | None = None
    """Optimiser steps done."""
    total_steps: int | None = None
    """Optimiser steps in all."""
    resumed_from_step: int | None = None
    """Step that the attempt started from."""
    lost_steps: int | None = None
    """Steps of the attempt before that were repeated."""
    tokens_per_second: int | None = None
    """Training throughput."""


class Result(ApiModel):
    """How an attempt ended."""

    reason: Reason
    """From the closed list; Completed when all is well."""
    message: str = ""
    """For people."""
    results: Results | None = None
    """Figures, samples and addresses."""
    checkpoint: CheckpointStatus | None = None
    """Newest complete checkpoint."""
    counts: Counts | None = None
    """Numbers of the attempt."""
    adjustments: list[str] | None = None
    """What the job changed to go on."""
    provenance: Provenance | None = None
    """Where the result came from."""
    evaluations: Annotated[list[EvaluationResult], Field()] | None = None
    """Evaluations, oldest first; the newest are kept when space is short."""


def encode(result: Result) -> bytes:
    """The result in at most 4,096 bytes of valid JSON, filled in the order of worth."""
    whole = result.to_json()
    samples = (whole.get("results") or {}).pop("samples", None)
    body: dict[str, Any] = {"reason": whole["reason"]}
    if whole.get("results"):
        body["results"] = whole["results"]
    message = _shorten(whole.get("message", ""), MAX_MESSAGE)
    body["message"] = _longest(message, lambda text: _fits({**body, "message": text}))
    for key in ("checkpoint", "counts", "adjustments"):
        if key in whole and _fits({**body, key: whole[key]}):
            body[key] = whole[key]
    if samples:
        body.setdefault("results", {})["samples"] = _cut_samples(body, samples)
        if not body["results"]["samples"]:
            del body["results"]["samples"]
    provenance = whole.get("provenance") or {}
    for part in ({key: value for key, value in provenance.items() if key != "versions"}, provenance):
        if part and _fits({**body, "provenance": part}):
            body["provenance"] = part
    kept: list[dict[str, Any]] = []
    for evaluation in reversed(whole.get("evaluations") or []):
        if not _fits({**body, "evaluations": [evaluation, *kept]}):
            break
        kept.insert(0, evaluation)
    if kept:
        body["evaluations"] = kept
    return _dump(body)


def decode(message: str) -> Result | None:
    """The result in a termination message, or None when it holds something else (last lines of a log, nothing)."""
    try:
        return Result.model_validate_json(message)
    except ValidationError:
        return None


def _cut_samples(body: dict[str, Any], samples: list[dict[str, str]]) -> list[dict[str, str]]:
    """All samples with their texts cut to one common length, or as many as fit when even that is too long."""

    def fits(chosen: list[dict[str, str]]) -> bool:
        # Leave room for the counts of what follows; provenance is small and worth more than the end of a sample.
        return _fits({**body, "results": {**body["results"], "samples": chosen}}, reserve=400)

    for count in range(len(samples), 0, -1):
        low, high, best = 8, max(len(text) for sample in samples for text in sample.values()), None
        while low <= high:
            middle = (low + high) // 2
            cut = [{key: _shorten(text, middle) for key, text in sample.items()} for sample in samples[:count]]
            if fits(cut):
                low, best = middle + 1, cut
            else:
                high = middle - 1
        if best is not None:
            return best
    return []


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + ELLIPSIS


def _longest(text: str, fits: Any) -> str:
    if fits(text):
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if fits(_shorten(text, middle)):
            low = middle
        else:
            high = middle - 1
    return _shorten(text, low) if low else ""


def _fits(body: dict[str, Any], reserve: int = 0) -> bool:
    return len(_dump(body)) <= MAX_BYTES - reserve


def _dump(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
