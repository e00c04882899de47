"""The end of a run: final figures, sample answers, and the files in storage. ``report.json`` is written last."""

import resource
import shutil
import sys
from dataclasses import dataclass
from typing import Any

import torch

from lmft_api.figures import FIGURES
from lmft_api.reasons import Reason
from lmft_api.spec import Weights
from lmft_api.text.times import now
from lmft_api.wire.layout import ADAPTER, BEST_FOLDER, METRICS, MODEL, PAGE, REPORT
from lmft_api.wire.progress import JobPhase
from lmft_api.wire.report import (
    DatasetFigures,
    ModelSummary,
    Report,
    ResultFigures,
    RowExample,
    SampleOutcome,
    TrainingFigures,
)
from lmft_api.wire.result import Result
from lmft_job.adapters.state import restore
from lmft_job.attempt.context import RunContext
from lmft_job.attempt.current import CurrentAttempt
from lmft_job.attempt.journal import Fence
from lmft_job.attempt.result import provenance, stored_report
from lmft_job.data.prepared import Prepared
from lmft_job.data.tokens.examples import row_segments
from lmft_job.evaluation.held_out import HeldOutFigures
from lmft_job.hub.push import push_to_hub
from lmft_job.models.device import device_name, precision_name
from lmft_job.models.published import save_tokenizer
from lmft_job.observers.metrics import Lines
from lmft_job.report.card import render_card
from lmft_job.report.page import render_page
from lmft_job.stages.adapter.settle import Settled
from lmft_job.stages.baseline import Before
from lmft_job.stages.inputs import Ingredients
from lmft_job.storage import Store, put_folder
from lmft_job.training.history import EvaluationPoint, Resumed
from lmft_job.training.loop import TrainingInputs
from lmft_job.training.trainer import Trained

EXAMPLE_CHARACTERS = 2_000
"""Characters of a training row in the report."""


@dataclass(frozen=True)
class RunOutcome:
    """Everything that the report says about a run."""

    attempt: CurrentAttempt
    resumed: Resumed | None
    ingredients: Ingredients
    summary: ModelSummary
    before: Before
    trained: Trained
    settled: Settled
    answers: list[str]
    adjustments: tuple[str, ...]


def final_figures(job: TrainingInputs, trained: Trained) -> HeldOutFigures:
    """Figures of the weights that are kept: the last, or the best, which are loaded first."""
    best = trained.state.best()
    folder = job.folder / BEST_FOLDER
    if job.settings.output.weights == Weights.BEST and best is not None and folder.is_dir():
        restore(job.model, folder)
        return best.figures
    return trained.state.evaluations[-1].figures


def followed(job: TrainingInputs, trained: Trained) -> Result:
    """The result of a process other than the first, whose part ends with the training."""
    world = job.group.world
    return Result(reason=Reason.COMPLETED, message=f"rank {world.rank} of {world.size} trained to step {trained.step}")


def answers_after(job: TrainingInputs, trained: Trained, limit: int | None) -> list[str]:
    """Answers of the trained model, with the same seed as before training."""
    job.observer.phase(JobPhase.SAMPLING)
    return job.answer(limit, lambda: job.beat(trained.step))


def compose_report(context: RunContext, job: TrainingInputs, outcome: RunOutcome, store: Store) -> Report:
    """The report, except for what is only known after writing: the timings."""
    settings, state = context.settings, outcome.trained.state
    source = outcome.ingredients.sources.model
    pairs = zip(settings.sample.shown, outcome.before.answers, outcome.answers, strict=True)
    report = Report(
        name=context.run.name,
        namespace=context.run.namespace,
        attempt=outcome.attempt.number,
        finished=now(),
        task=settings.task,
        model=outcome.summary,
        device=device_name(job.arithmetic),
        precision=precision_name(job.arithmetic),
        acceleration=job.acceleration.described(job.model, job.arithmetic),
        evaluation_dtype=outcome.settled.evaluation_dtype,
        saved_dtype=outcome.settled.saved_dtype,
        results=ResultFigures(
            **_before_and_after(outcome.before.figures, outcome.settled.figures),
            samples=[SampleOutcome(prompt=prompt, before=first, after=last) for prompt, first, last in pairs],
            model_uri=store.url(outcome.settled.folder),
            adapter_uri=store.url(ADAPTER) if outcome.settled.adapter else None,
            report_uri=store.url(PAGE),
        ),
        evaluations=[measured.evaluation() for measured in state.evaluations],
        dataset=_with_example(outcome.ingredients.data),
        settings=settings.flat(),
        spec=settings.named(),
        training=TrainingFigures(
            steps=outcome.trained.step,
            total_steps=outcome.trained.total,
            epochs=outcome.trained.epoch,
            tokens=state.tokens,
            tokens_per_second=state.tokens / state.seconds if state.seconds else None,
            checkpoint_seconds=state.saving_seconds,
            resumed_from_step=outcome.resumed.point.step if outcome.resumed else None,
            lost_steps=outcome.resumed.point.lost_steps if outcome.resumed else None,
            resumes=state.resumes,
            adjustments=list(outcome.adjustments),
        ),
        adapter=outcome.settled.adapter,
        warnings=list(outcome.settled.warnings),
        provenance=provenance(
            context.run,
            settings.training.seed,
            source.revision if source else None,
            outcome.ingredients.data.fingerprint,
        ),
    )
    report = context.scrubber.model(report)
    return report.model_copy(update={"redactions": context.scrubber.replaced})


def _with_example(data: Prepared) -> DatasetFigures:
    """The data in numbers, with a row of it; conversations have some already."""
    if data.figures.conversations is not None:
        return data.figures
    row = row_segments(data.train, data.tokenizer, data.labels, 0, EXAMPLE_CHARACTERS)
    return data.figures.model_copy(update={"examples": [RowExample(segments=row)]})


def _before_and_after(before: HeldOutFigures, after: HeldOutFigures) -> dict[str, Any]:
    baseline, names = before.by_name(), [(kind.name, kind.standard_error) for kind in FIGURES]
    return {**after.by_name(), **{f"baseline_{name}": baseline[name] for pair in names for name in pair}}


def publish(context: RunContext, job: TrainingInputs, outcome: RunOutcome, store: Store, fence: Fence) -> Report:
    """Save model, tokenizer, model card and report; if another attempt has published first, its files stay.

    Raises:
        InterruptedRunError: a later attempt has begun, or a stop was requested.
    """
    context.watchdog.beat("saving the model")
    if theirs := stored_report(store):
        return theirs
    report = compose_report(context, job, outcome, store)
    with context.phase("saving"):
        save_model(context, job, store, report, fence, outcome.settled)
        push(context, job, fence, outcome.settled.folder)
    if job.metrics is not None:
        job.metrics.end()
    return publish_report(context, store, report, outcome, fence)


def save_model(
    context: RunContext, job: TrainingInputs, store: Store, report: Report, fence: Fence, settled: Settled
) -> None:
    """Model, tokenizer and model card, as ``pipeline()`` loads them; the card of an adapter, which is stored already.

    Raises:
        InterruptedRunError: a later attempt has begun, or a stop was requested.
    """

    def check() -> None:
        context.check()
        fence.check()

    job.observer.phase(JobPhase.SAVING)
    folder = job.folder / MODEL
    if settled.adapter is None:
        shutil.rmtree(folder, ignore_errors=True)
        # Trainer disables the generation cache for training; users of the model want it.
        job.model.config.use_cache = True
        job.model.save_pretrained(folder)
    fence.require()
    if settled.adapter is not None:
        card = render_card(report, of_adapter=True)
        (job.folder / ADAPTER / "README.md").write_text(card, encoding="utf-8")
        store.put_bytes(f"{ADAPTER}/README.md", card.encode())
    if settled.folder == MODEL:
        save_tokenizer(job.tokenizer, folder)
        (folder / "README.md").write_text(render_card(report), encoding="utf-8")
        put_folder(store, MODEL, folder, check)


def push(context: RunContext, job: TrainingInputs, fence: Fence, folder: str) -> None:
    """Upload the model's folder to the hub, if the manifest asks for it; not beside a later attempt."""
    wanted = context.settings.output.push_to_hub
    if wanted is None:
        return
    fence.require()
    address = push_to_hub(
        job.folder / folder,
        wanted.repository,
        private=wanted.private,
        token=context.hub_token(),
        paused=context.watchdog.paused,
    )
    context.observer.note(f"pushed to {address}")


def publish_report(context: RunContext, store: Store, report: Report, outcome: RunOutcome, fence: Fence) -> Report:
    """Metrics and page, then the JSON that completes the run. If another attempt was first, its JSON stays."""
    fence.require()
    if theirs := stored_report(store):
        return theirs
    measured = {"timings": dict(context.timings), "peak_memory": _peak_memory()}
    final = report.model_copy(update={**measured, "finished": now()})
    before = EvaluationPoint(0, 0.0, None, outcome.before.figures).evaluation()
    store.put_bytes(METRICS, outcome.trained.state.metrics(Lines(), before))
    store.put_bytes(PAGE, render_page(final, outcome.trained.state.curve()))
    if store.put_if_absent(REPORT, final.to_json()):
        return final
    return stored_report(store) or final


def _peak_memory() -> dict[str, int]:
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): KiB on Linux, bytes on macOS
    peaks = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available():
        peaks["device"] = torch.cuda.max_memory_allocated()
    return peaks
