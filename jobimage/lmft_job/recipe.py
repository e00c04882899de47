"""The whole run, from top to bottom; every helper does what its heading names."""

from dataclasses import replace

from lmft_api.wire.result import Result
from lmft_api.wire.run_file import Stage
from lmft_job.attempt.context import RunContext, limit_threads_to_cpu_quota, quiet_transformers
from lmft_job.attempt.result import completed
from lmft_job.attempt.training import TrainingAttempt
from lmft_job.stages import publish
from lmft_job.stages.adapter.settle import settle
from lmft_job.stages.announce import announce
from lmft_job.stages.baseline import measure_before
from lmft_job.stages.check import check
from lmft_job.stages.inputs import gather, training_inputs
from lmft_job.stages.preparation import finish_preparation
from lmft_job.stages.ranks import finish, load, meet, place
from lmft_job.stages.resume import find_checkpoint
from lmft_job.stages.sources.find import find_sources, model_identity
from lmft_job.training.trainer import train


def run(context: RunContext) -> Result:
    """Run a manifest: load, split, tokenise, pack, evaluate, train, evaluate, sample, save, report.

    Raises:
        JobError: anything that ends the run early, with its exit code and a message for people.
    """
    quiet_transformers()
    limit_threads_to_cpu_quota()
    with context.watchdog:
        return _run(context)


def _run(context: RunContext) -> Result:
    # Check
    with context.phase("check"):
        start = check(context)
    if isinstance(start, Result):
        return start
    store = start.store

    # Load the data set and preprocess it: split, flatten, tokenise, pack
    with context.phase("load"):
        sources = find_sources(context, store, start.began)
    with context.phase("data"):
        inputs = gather(context, store, sources, start.began)

    # Load the model
    with context.phase("load"):
        built = load.load_model(context, inputs, start.arithmetic)
        summary = announce(context, inputs, built, start.arithmetic)
    start = meet.meet_and_claim(context, start, inputs, model_identity(context, sources))
    if context.run.stage == Stage.PREPARE:
        with context.phase("stage"):
            return finish_preparation(context, store, inputs)

    # Resume
    placed = place.place(context, built.model, start.arithmetic, lambda: load.whole(context, inputs, start.arithmetic))
    with context.phase("resume"):
        resumed = find_checkpoint(context, store, start.attempt, placed.model)

    with TrainingAttempt(context, store, start.attempt, start.rows, placed.share) as attempt:
        with attempt.adjusted_on_shortage(placed.model):
            job = training_inputs(context, start, inputs, placed.model, attempt)

            # Evaluate and sample before training
            with context.phase("baseline"):
                before = measure_before(context, job, store, inputs.limit)

            # Train
            with context.phase("training"):
                trained = train(replace(job, before=before.units), resumed)

            # Evaluate and sample with the same held-out rows and the same prompts
            with context.phase("evaluation"):
                figures = publish.final_figures(job, trained)
            last = finish.finish_together(job, placed, trained, inputs.limit)
            if not context.world.main:
                return publish.followed(job, trained)
            # Merge the adapter, if there is one, and evaluate what is published
            with context.phase("merging"):
                settled = settle(context, last.job, inputs, built, figures, store, attempt.fence)
            with context.phase("samples"):
                answers = last.answers or publish.answers_after(settled.job, trained, inputs.limit)

        # Save model, tokenizer, model card and report
        notes = (*built.notes, *attempt.adjustment.notes)
        outcome = publish.RunOutcome(start.attempt, resumed, inputs, summary, before, trained, settled, answers, notes)
        report = publish.publish(context, last.job, outcome, store, attempt.fence)
        attempt.uploads.keep_last()

    context.observer.done(report)
    context.remove_scratch()
    return completed(report, context.progress.checkpoint)
