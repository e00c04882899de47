"""How an attempt begins: what is there already, which attempt this is, where it goes on, and what it starts from."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from lmft_api.progress import JobPhase
from lmft_api.reasons import Reason
from lmft_api.result import Result
from lmft_api.run import attempt_folder, spec_hash
from lmft_api.status import Provenance
from lmft_job.checkpoints import newest_verified
from lmft_job.context import RunContext
from lmft_job.errors import InvalidError, RefusedError
from lmft_job.evaluation import Arithmetic, HeldOutFigures
from lmft_job.hub_push import check_push
from lmft_job.ingredients import STAGED, Ingredients
from lmft_job.journal import known_attempts
from lmft_job.notes import read_note
from lmft_job.observer import DataPrepared, GoneOn, Headline
from lmft_job.outcome import completed
from lmft_job.report.model import Evaluation, ModelSummary, Report, Resume
from lmft_job.report.words import short_count
from lmft_job.storage import Store
from lmft_job.training_run import Job

REPORT = "report.json"
RUN_MARKER = "run.json"
BEFORE = "before.json"
MODEL = "model"


@dataclass(frozen=True)
class Attempt:
    """This attempt, and the steps that earlier ones are known to have done; its own too, in a process before this."""

    number: int
    earlier: dict[int, int]


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
    """The model before training."""

    figures: HeldOutFigures
    answers: tuple[str, ...]


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
    wanted = spec_hash(context.run.spec)
    data = store.get_bytes(REPORT)
    if data is not None and context.in_pod:
        return completed(Report.from_json(data))
    if data is not None:
        raise InvalidError(
            [f"metadata.name: {store.url('')} holds a finished run; choose another name, or --overwrite it"]
        )
    marker = read_note(store, RUN_MARKER)
    if marker is not None and marker.get("specHash") != wanted:
        raise InvalidError(
            [
                f"metadata.name: {store.url('')} holds an unfinished run of another spec; choose another name, or "
                "--overwrite it"
            ]
        )
    return None


def claim(context: RunContext, store: Store) -> None:
    """Note in the run's folder whose it is. Not before all was looked at: a manifest that was wrong may change."""
    body = {"name": context.run.name, "specHash": spec_hash(context.run.spec)}
    store.put_bytes(RUN_MARKER, json.dumps(body).encode())


def check_push_right(context: RunContext) -> None:
    """Ask the hub whether the model may be pushed, where the manifest wants it.

    Raises:
        RefusedError, UnavailableError: see :func:`lmft_job.hub_push.check_push`.
    """
    wanted = context.settings.output.push_to_hub
    if wanted is not None:
        check_push(wanted.repository, private=bool(wanted.private), token=context.hub_token())


def begin_attempt(context: RunContext, store: Store) -> Attempt:
    """Number of this attempt: the operator's in a cluster, counted on a laptop."""
    earlier = known_attempts(store)
    number = context.run.attempt if context.in_pod else max(earlier, default=0) + 1
    left = [f"{attempt_folder(known)}/" for known in earlier if known <= number]
    if max(earlier, default=0) <= number:
        # All attempts share these folders, and what a successor is sending there is not ours to end.
        left += [f"{MODEL}/", f"{STAGED}/"]
    try:
        # Parts that a killed attempt had sent cost money until somebody removes them.
        for prefix in left if earlier else []:
            store.abort_incomplete(prefix)
    except RefusedError as error:
        context.observer.note(f"half-sent uploads of attempts before could not be looked for: {error}")
    return Attempt(number, earlier)


def find_checkpoint(context: RunContext, store: Store, attempt: Attempt) -> Resumed | None:
    """The newest checkpoint that is complete and verified, on this disk; None to start afresh."""
    folder = context.folder / "resume"
    found = newest_verified(store, folder, context.observer.note)
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


def measure_before(job: Job, store: Store, limit: int | None) -> Before:
    """Figures and answers of the model before training; kept in storage, so that a resumed run need not repeat it."""
    body = read_note(store, BEFORE)
    if body is not None:
        before = Before(HeldOutFigures(**body["figures"]), tuple(body["answers"]))
    else:
        beat = lambda: job.beat(0)  # noqa: E731
        job.observer.phase(JobPhase.SAMPLING)
        answers = job.answer(limit, beat)
        job.observer.phase(JobPhase.EVALUATING)
        figures = job.evaluate(beat)
        before = Before(figures, tuple(answers))
        store.put_bytes(BEFORE, json.dumps({"figures": asdict(figures), "answers": answers}).encode())
    figures = before.figures
    job.observer.baseline(
        Evaluation(step=0, epoch=0.0, eval_loss=figures.loss, perplexity=figures.perplexity, accuracy=figures.accuracy)
    )
    return before


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
