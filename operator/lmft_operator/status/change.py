"""Copies of a status and its parts with other values, whose names and types mypy checks.

pydantic's ``model_copy(update=...)`` takes any name and any value. The types below list the fields that the operator
sets; a test compares them with the models.
"""

from typing import Any, TypedDict, TypeVar, Unpack, overload

from lmft_api.reasons import Phase
from lmft_api.schema.types import ApiModel
from lmft_api.status import (
    Attempt,
    CheckpointStatus,
    Condition,
    ConditionStatus,
    EvaluationResult,
    LMFineTuneStatus,
    Progress,
    Provenance,
    Results,
    Usage,
)
from lmft_api.wire.result import Result

Model = TypeVar("Model", bound=ApiModel)


class StatusValues(TypedDict, total=False):
    """Fields of ``status`` that change."""

    observed_generation: int | None
    phase: Phase | None
    conditions: list[Condition] | None
    model: str | None
    progress: Progress | None
    results: Results | None
    evaluations: list[EvaluationResult] | None
    checkpoint: CheckpointStatus | None
    attempts: list[Attempt] | None
    failures: int | None
    interruptions: int | None
    start_time: str | None
    completion_time: str | None
    usage: Usage | None
    provenance: Provenance | None


class AttemptValues(TypedDict, total=False):
    """Fields of an attempt that change: all but its number and stage."""

    job: str
    placed_nodes: int | None
    start_time: str | None
    end_time: str | None
    reason: str | None
    message: str | None
    exit_code: int | None
    highest_attempt: int | None
    cause: str | None
    resumed_from_step: int | None
    lost_steps: int | None
    checkpoint_step: int | None
    adjustments: list[str] | None


class ConditionValues(TypedDict, total=False):
    """Fields of a condition in which one condition differs from another."""

    type: str
    status: ConditionStatus
    message: str


class ProgressValues(TypedDict, total=False):
    """Fields of the progress that the end of an attempt sets."""

    percent: int | None
    display: str | None
    eta: str | None
    step: int | None
    total_steps: int | None
    tokens_per_second: int | None


class ResultsValues(TypedDict, total=False):
    """Fields of the results that are not figures; see :func:`with_values` for those."""

    display: str | None
    model_uri: str | None
    adapter_uri: str | None
    report_uri: str | None


class ProvenanceValues(TypedDict, total=False):
    """Fields of the provenance that the operator knows better than the job."""

    image: str | None
    spec_hash: str | None
    seed: int | None
    resumed_from: str | None


class ResultValues(TypedDict, total=False):
    """Fields of a job's result that may be left out."""

    results: Results | None
    checkpoint: CheckpointStatus | None
    adjustments: list[str] | None
    highest_attempt: int | None
    provenance: Provenance | None
    evaluations: list[EvaluationResult] | None


VALUES: dict[type[ApiModel], type] = {
    LMFineTuneStatus: StatusValues,
    Attempt: AttemptValues,
    Condition: ConditionValues,
    Progress: ProgressValues,
    Results: ResultsValues,
    Provenance: ProvenanceValues,
    Result: ResultValues,
}
"""What :func:`change` takes for each model."""


@overload
def change(before: LMFineTuneStatus, /, **values: Unpack[StatusValues]) -> LMFineTuneStatus: ...
@overload
def change(before: Attempt, /, **values: Unpack[AttemptValues]) -> Attempt: ...
@overload
def change(before: Condition, /, **values: Unpack[ConditionValues]) -> Condition: ...
@overload
def change(before: Progress, /, **values: Unpack[ProgressValues]) -> Progress: ...
@overload
def change(before: Results, /, **values: Unpack[ResultsValues]) -> Results: ...
@overload
def change(before: Provenance, /, **values: Unpack[ProvenanceValues]) -> Provenance: ...
@overload
def change(before: Result, /, **values: Unpack[ResultValues]) -> Result: ...
def change(before: Any, /, **values: Any) -> Any:
    """A copy with other values, given by their Python names."""
    return with_values(before, values)


def with_values(before: Model, values: dict[str, Any]) -> Model:
    """A copy with values whose names come from a table, such as figures, or from the model itself.

    Raises:
        TypeError: the model has no such field.
    """
    unknown = values.keys() - type(before).model_fields.keys()
    if unknown:
        raise TypeError(f"{type(before).__name__} has no field {', '.join(sorted(unknown))}")
    return before.model_copy(update=values)
