"""How an attempt begins: what is there already, which attempt this is, where it goes on, and what it starts from."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lmft_api.progress import JobPhase
from lmft_api.reasons import Reason
from lmft_api.result import Result
from lmft_api.run import spec_hash
from lmft_api.status import Provenance
from lmft_job import journal
from lmft_job.checkpoints import newest_verified
from lmft_job.checkpoints.loading import require_loadable
from lmft_job.claim import Claim, read_claim
from lmft_job.context import RunContext
from lmft_job.errors import InvalidError, RefusedError
from lmft_job.evaluation import Arithmetic, HeldOutFigures
from lmft_job.hub_push import check_push
from lmft_job.ingredients import STAGED, Ingredients
from lmft_job.notes import read_note
from lmft_job.observer import DataPrepared, GoneOn, Headline
from lmft_job.outcome import completed
from lmft_job.report.data_words import data_remarks
from lmft_job.report.model import ModelSummary, Report, Resume
from lmft_job.report.words import short_count
from lmft_job.run_state import Measured
from lmft_job.storage import Store
from lmft_job.training_run import Job
from lmft_job.uncertainty import Units

REPORT = "report.json"
BEFORE = "before.json"
BEFORE_UNITS = "before.npy"
MODEL = "model"


@dataclass(frozen=True)
class Attempt:
    """This attempt.

    Attributes:
        ours: its number, and its pod.
        earlier: steps that attempts before are known to have done; its own too, in a process before this.
        passed_over: folders of the checkpoints that it finds damaged.
    """

    ours: journal.Begun
    earlier: dict[int, int]
    passed_over: set[str] = field(default_factory=set)

    @property
    def number(self) -> int:
        """From 1."""
        return self.ours.number


@dataclass(frozen=True)
class Resumed:
    """The checkpoint that this attempt goes on from."""

    folder: Path
    step: int
    lost_steps: int
    attempt: int

    def noted(self) -> Resume:
        """For the report."""
        return Resume(step=self.step, lost_steps=self.lost_steps, attempt=self.attempt)


@dataclass(frozen=True)
class Before:
    """The model before training; units are None where an older version measured it, or the model does not tell."""

    figures: HeldOutFigures
    answers: tuple[str, ...]
    units: Units | None = None


def finished_before(context: RunContext, store: Store) -> Result | None:
    """The result of a run that is complete already; its report is written last.

    In a pod that is the answer: a result lost with its pod is fetched again so. On a laptop a person asked for a run.

    Raises:
        InvalidError: on a laptop, when something is there that must not be lost without --overwrite.
    """
    if context.overwrite:
        # The report first: a run without it is not complete.
        keys = sorted((item.key for item in store.list("")), key=lambda key: (key != REPORT, key))
        store.delete(keys)
    report = stored_report(store)
    if report is not None and context.in_pod:
        return completed(report)
    if report is not None:
        raise InvalidError(
            [f"metadata.name: {store.url('')} holds a finished run; choose another name, or --overwrite it"]
        )
    return None


def stored_report(store: Store) -> Report | None:
    """The report of a run that is complete; None while it is not.

    Raises:
        InvalidError: it is damaged.
    """
    return read_note(store, REPORT, Report.model_validate)


def begun_before(context: RunContext, store: Store) -> Claim | None:
    """What the run in this folder began with; None for a new one.

    Raises:
        InvalidError: it is a run of another spec.
    """
    began = read_claim(store)
    if began is not None and began.specHash != spec_hash(context.run.spec):
        raise InvalidError(
            [
                f"metadata.name: {store.url('')} holds an unfinished run of another spec; choose another name, or "
                "--overwrite it"
            ]
        )
    return began


def check_push_right(context: RunContext) -> None:
    """Ask the hub whether the model may be pushed, where the manifest wants it.

    Raises:
        RefusedError, UnavailableError: see :func:`lmft_job.hub_push.check_push`.
    """
    wanted = context.settings.output.push_to_hub
    if wanted is not None:
        check_push(wanted.repository, private=bool(wanted.private), token=context.hub_token())


def begin_attempt(context: RunContext, store: Store) -> Attempt:
    """Number of this attempt: the operator's in a cluster, counted on a laptop. From now on earlier ones see it.

    Raises:
        InterruptedRunError: a later attempt has begun.
    """
    before = journal.begun(store)
    highest = max((attempt.number for attempt in before), default=0)
    number = context.run.attempt if context.in_pod else highest + 1
    context.progress.highest_attempt = max(number, highest)
    ours = journal.place(store, number, context.pod, before)
    journal.Fence(store, ours).require()
    if context.in_pod:
        journal.begin(store, ours)
    try:
        # Parts that a killed attempt had sent cost money until somebody removes them.
        for folder in (*(attempt.folder for attempt in before), MODEL, STAGED) if before else ():
            store.abort_incomplete(f"{folder}/")
    except RefusedError as error:
        context.observer.note(f"half-sent uploads of attempts before could not be looked for: {error}")
    return Attempt(ours, journal.known_steps(store, before))


def find_checkpoint(context: RunContext, store: Store, attempt: Attempt, model: Any) -> Resumed | None:
    """The newest checkpoint that is complete, verified and loads into the model, on this disk; None to start afresh."""
    folder = context.folder / "resume"

    def loads(fetched: Path) -> None:
        require_loadable(fetched, model, own_trainer=context.settings.training.trainer_class is not None)

    found = newest_verified(store, folder, context.observer.note, context.check, attempt.passed_over, loads)
    if found is None:
        return None
    lost = max([0, *(step - found.step for step in attempt.earlier.values())])
    context.progress.resumed_from_step, context.progress.lost_steps = found.step, lost
    context.observer.resumed(GoneOn(found.step, found.attempt, lost))
    return Resumed(folder, found.step, lost, attempt.number)


def tell_data(context: RunContext, ingredients: Ingredients) -> None:
    """Tell people about the data."""
    data = ingredients.data
    seconds = context.timings.get("data", 0.0)
    size = context.settings.dataset.block_size
    context.observer.data(DataPrepared(data.figures, size, seconds, reused=data.reused, noun=data.noun))
    for remark in data_remarks(data.figures):
        context.observer.note(remark)


def tell_model(context: RunContext, summary: ModelSummary, arithmetic: Arithmetic) -> None:
    """Tell people what is trained, and on what."""
    size = f"{short_count(summary.parameters)} parameters" if summary.parameters else ""
    parts = [part for part in (summary.detail, size) if part]
    if summary.base_model is None:
        name = f"{summary.name.removesuffix(' (from config)')} ({', '.join(parts)}, from config)"
    else:
        name = f"{summary.name} ({', '.join(parts)})"
    device, precision = device_name(arithmetic), precision_name(arithmetic)
    context.observer.headline(Headline(context.run.name, context.settings.task, name, device, precision))


def device_name(arithmetic: Arithmetic) -> str:
    """For people: ``CPU`` or the GPU's name."""
    if arithmetic.device.type == "cpu":
        return "CPU"
    import torch

    return torch.cuda.get_device_name(arithmetic.device)


def precision_name(arithmetic: Arithmetic) -> str:
    """FP32, BF16 or FP16."""
    return {"torch.bfloat16": "BF16", "torch.float16": "FP16"}.get(str(arithmetic.autocast), "FP32")


def measure_before(context: RunContext, job: Job, store: Store, limit: int | None) -> Before:
    """Figures and answers of the model before training; kept in storage, so that a resumed run need not repeat it."""
    before = read_note(store, BEFORE, _understand_before)
    if before is None:
        beat = lambda: job.beat(0)  # noqa: E731
        job.observer.phase(JobPhase.SAMPLING)
        answers = [context.scrubber.scrub(answer) for answer in job.answer(limit, beat)]
        job.observer.phase(JobPhase.EVALUATING)
        measured = job.evaluate(beat)
        figures, before = measured.figures, Before(measured.figures, tuple(answers))
        if measured.units is not None:
            store.put_if_absent(BEFORE_UNITS, measured.units.to_bytes())
        if not store.put_if_absent(BEFORE, json.dumps({"figures": asdict(figures), "answers": answers}).encode()):
            # An attempt thought dead was first; one baseline for all.
            before = read_note(store, BEFORE, _understand_before) or before
    job.observer.baseline(Measured(0, 0.0, None, before.figures).evaluation())
    return replace(before, units=_units_before(store))


def _units_before(store: Store) -> Units | None:
    data = store.get_bytes(BEFORE_UNITS)
    try:
        return None if data is None else Units.from_bytes(data)
    except ValueError:
        return None  # the change is then judged without it, more cautiously


def _understand_before(note: dict[str, Any]) -> Before:
    return Before(HeldOutFigures(**note["figures"]), tuple(note["answers"]))


def prepared_result(context: RunContext, ingredients: Ingredients) -> Result:
    """The last word of the prepare stage."""
    figures = ingredients.data.figures
    model = ingredients.sources.model
    return Result(
        reason=Reason.COMPLETED,
        message=f"prepared: {figures.train_rows:,} rows to train on, {figures.eval_rows:,} held out",
        provenance=Provenance(
            image=context.run.image,
            dataset_fingerprint=figures.fingerprint,
            model_revision=model.revision if model else None,
            spec_hash=spec_hash(context.run.spec),
            seed=context.settings.training.seed,
        ),
    )
