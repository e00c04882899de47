"""Figures and sample answers of the model before training."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lmft_api.wire.layout import BEFORE, BEFORE_UNITS
from lmft_api.wire.progress import JobPhase
from lmft_job.attempt.context import RunContext
from lmft_job.distributed.group import SteadyCheck
from lmft_job.evaluation.held_out import Beat, HeldOutFigures
from lmft_job.evaluation.uncertainty import Units
from lmft_job.sharding.divide import is_divided
from lmft_job.storage import Store
from lmft_job.storage.notes import read_note
from lmft_job.training.history import EvaluationPoint
from lmft_job.training.loop import TrainingInputs


@dataclass(frozen=True)
class Before:
    """The baseline; units are None if an older version measured it, or the model's logits do not allow it."""

    figures: HeldOutFigures
    answers: tuple[str, ...]
    units: Units | None = None

    @classmethod
    def from_json(cls, note: Mapping[str, Any]) -> "Before":
        """Read from before.json; without the units."""
        return cls(HeldOutFigures.from_json(note["figures"]), tuple(note["answers"]))


def measure_before(context: RunContext, job: TrainingInputs, store: Store, limit: int | None) -> Before:
    """Measure the baseline; stored, so that a resumed run need not repeat it."""
    known = job.group.from_main(lambda: _to_json(read_note(store, BEFORE, Before.from_json)))
    before = Before.from_json(known) if known else None
    if before is None:
        job.observer.phase(JobPhase.SAMPLING)
        answers = [context.scrubber.scrub(answer) for answer in answered(job, limit, lambda: job.beat(0))]
        job.observer.phase(JobPhase.EVALUATING)
        measured = job.evaluate(_steady_beat(job))
        figures, before = measured.figures, Before(measured.figures, tuple(answers))
        if measured.units is not None:
            store.put_if_absent(BEFORE_UNITS, measured.units.to_bytes())
        note = {"figures": figures.to_json(), "answers": answers}
        if not store.put_if_absent(BEFORE, json.dumps(note).encode()):
            # An attempt believed dead was first; all attempts use one baseline.
            before = read_note(store, BEFORE, Before.from_json) or before
    row = EvaluationPoint(0, 0.0, None, before.figures).evaluation()
    job.observer.baseline(row)
    if job.metrics is not None:
        job.metrics.measured(row)
    return replace(before, units=_units_before(store))


def _to_json(before: Before | None) -> dict[str, Any] | None:
    if before is None:
        return None
    return {"figures": before.figures.to_json(), "answers": list(before.answers)}


def answered(job: TrainingInputs, limit: int | None, beat: Beat) -> list[str]:
    """The model's answers to the prompts, which rank 0 gives; the others take part where they hold a part of it."""
    if is_divided(job.model):
        answers = job.answer(limit, beat)
        return job.group.from_main(lambda: answers)
    return job.group.from_main(lambda: job.answer(limit, beat))


def _steady_beat(job: TrainingInputs) -> Beat:
    """Reports progress; alone, a stop is raised by the signal itself."""
    stop = SteadyCheck(job.group, lambda: job.interrupt.requested and not job.group.world.alone)

    def beat() -> None:
        job.beat(0)
        if stop():
            job.interrupt.adopt()
            job.interrupt.check()

    return beat


def _units_before(store: Store) -> Units | None:
    data = store.get_bytes(BEFORE_UNITS)
    try:
        return None if data is None else Units.from_bytes(data)
    except ValueError:
        return None  # the change is then judged without it, with a larger error
