"""The whole run, from top to bottom; every helper does one thing that the heading names."""

import shutil
from dataclasses import replace

import torch

from lmft_api.wire.result import Result
from lmft_api.wire.run_file import Stage
from lmft_job.attempt.context import RunContext, heed_cpu_quota, quiet_transformers
from lmft_job.attempt.identity import claim
from lmft_job.attempt.journal import Fence, Journal
from lmft_job.attempt.result import completed, stored_report
from lmft_job.attempt.uploads import Uploads
from lmft_job.models.device import arithmetic_for
from lmft_job.stages import publish
from lmft_job.stages.announce import summarise, tell_data, tell_model
from lmft_job.stages.baseline import measure_before
from lmft_job.stages.check import begin_attempt, begun_before, check_push_right, finished_before
from lmft_job.stages.inputs import choose_device, find_sources, gather, make_model
from lmft_job.stages.preparation import prepared_result, stage
from lmft_job.stages.resume import find_checkpoint
from lmft_job.training.acceleration.selection import choose_acceleration
from lmft_job.training.batch import Adjustment, Batch, is_shortage
from lmft_job.training.loop import TrainingInputs, steps_of
from lmft_job.training.trainer import computes_own_loss, train
from lmft_job.training.user_code import load_user_code, refuse_forbidden_code


def run(context: RunContext) -> Result:
    """Run a manifest: load, split, tokenise, pack, evaluate, train, evaluate, sample, save, report.

    Raises:
        JobError: whatever ends the run early, with its exit code and words for people.
    """
    quiet_transformers()
    heed_cpu_quota()
    with context.watchdog:
        return _run(context)


def _run(context: RunContext) -> Result:
    settings, observer = context.settings, context.observer

    # Check: what is forbidden, what is there already, and whether the result can be written at all
    with context.phase("check"):
        refuse_forbidden_code(context.run, settings)
        store = context.run_store()
        store.probe_write()
        if done := finished_before(context, store):
            return done
        began = begun_before(context, store)
        check_push_right(context)
        device = choose_device(context) if context.run.stage != Stage.PREPARE else torch.device("cpu")
        arithmetic = arithmetic_for(settings, device)
        trainer_class, callbacks = load_user_code(settings)
        attempt = begin_attempt(context, store)

    # Load → split → flatten → tokenise → pack
    with context.phase("load"):
        sources = find_sources(context, store, began)
    with context.phase("data"):
        ingredients = gather(context, store, sources, began)
    with context.phase("load"):
        built = make_model(context, ingredients, device)
        model = built.model
        summary = summarise(ingredients.config, model, context.run.spec.model.name)
        tell_model(context, summary, arithmetic)
        tell_data(context, ingredients)
        for note in built.notes:
            observer.note(note)
    revision = sources.model.revision if sources.model else None
    claim(context, store, began, ingredients.data.fingerprint, revision)
    if context.run.stage == Stage.PREPARE:
        with context.phase("stage"):
            stage(context, store, ingredients)
        return prepared_result(context, ingredients)

    # Take up where the attempt before stopped
    with context.phase("resume"):
        resumed = find_checkpoint(context, store, attempt, model)
        planned = Batch(settings.training.per_device_batch_size, settings.training.gradient_accumulation_steps)
        adjustment = Adjustment.load(store, planned)
        context.progress.adjustments = list(adjustment.notes)

    uploads, fence = Uploads(context, store, attempt), Fence(store, attempt.ours)
    with Journal(store, attempt.ours) as journal, uploads:
        context.watchdog.steps_begin("measuring the model before training")

        def beat(step: int) -> None:
            journal.step = context.progress.step = max(journal.step, step)
            context.watchdog.beat(f"training, at step {step}")

        try:
            acceleration = choose_acceleration(
                model,
                settings.task,
                arithmetic,
                block_size=settings.dataset.block_size,
                rows=adjustment.batch.rows,
                steps=steps_of(settings, len(ingredients.data.train), adjustment.batch),
                wanted=settings.training.compile,
                own_loss=computes_own_loss(trainer_class),
            )
            job = TrainingInputs(
                settings=settings,
                model=model,
                tokenizer=ingredients.tokenizer,
                train_rows=ingredients.data.train,
                eval_rows=ingredients.data.held_out,
                collate=acceleration.collate(ingredients.data.collator),
                arithmetic=arithmetic,
                batch=adjustment.batch,
                folder=context.folder,
                uploads=uploads,
                interrupt=context.interrupt,
                observer=observer,
                beat=beat,
                trainer_class=trainer_class,
                callbacks=callbacks,
                acceleration=acceleration,
            )
            # Before: the same held-out rows and the same prompts as after
            with context.phase("baseline"):
                before = measure_before(context, job, store, ingredients.limit)
                job = replace(job, before=before.units)

            # Train, with evaluations and checkpoints
            with context.phase("training"):
                trained = train(job, resumed.folder if resumed else None, resumed.noted() if resumed else None)

            # After
            with context.phase("evaluation"):
                figures = publish.final_figures(job, trained)
            with context.phase("samples"):
                answers = publish.answers_after(job, trained, ingredients.limit)
        except RuntimeError as error:
            if not is_shortage(error):
                raise
            smaller = adjustment.after_shortage(journal.step)
            fence.require()
            smaller.save(store)
            observer.note(f"{smaller.notes[-1]}; going on in a fresh process")
            uploads.wait()
            journal.write()
            context.restart()
            raise

        # Save model, tokenizer, model card, report; unless an attempt beside us was first
        context.watchdog.beat("saving the model")
        report = stored_report(store)
        if report is None:
            notes = (*built.notes, *adjustment.notes)
            story = publish.Story(attempt, resumed, ingredients, summary, before, trained, figures, answers, notes)
            report = publish.compose_report(context, job, story, store)
            with context.phase("saving"):
                publish.save_model(context, job, store, report, fence)
                publish.push(context, job, fence)
            report = publish.publish_report(context, store, report, trained, fence)
        uploads.keep_last()
    observer.done(report)
    shutil.rmtree(context.folder, ignore_errors=True)
    return completed(report, context.progress.checkpoint)
