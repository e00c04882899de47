"""Training by transformers' Trainer, with our evaluation and checkpoints, and stops that lose nothing.

The loss curve is Trainer's own. Added are: losses of every step are kept, a non-finite one ends the run, evaluation
does not change the random state, and a checkpoint holds enough to resume bit-identically on a CPU.
"""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from lmft_api.figures import FIGURES
from lmft_api.spec import Optimizer, Scheduler
from lmft_api.wire.layout import BEST_FOLDER
from lmft_api.wire.progress import JobPhase
from lmft_job import tasks
from lmft_job.adapters.state import restore
from lmft_job.data.rows import FILLER, EpochSampler
from lmft_job.errors import InvalidError
from lmft_job.evaluation.held_out import TrainerLoss
from lmft_job.models.next_token import uses_item_count
from lmft_job.sharding.divide import is_divided
from lmft_job.training.acceleration.constant_rows import FilledTrainer
from lmft_job.training.history import Resumed, TrainingHistory
from lmft_job.training.loop import TRAINER_FOLDER, EvaluationStopped, TrainingInputs, TrainingLoop, planned_steps
from lmft_job.training.random_state import draw_as_trainer_does, draw_in_checkpoint, restore_state
from lmft_job.training.ranked import RankedTrainer
from lmft_job.training.saving.trainer import SavingTrainer
from lmft_job.training.sharded.parts import adopt_best
from lmft_job.training.sharded.trainer import DividedTrainer, load_optimizer

LOG_EVERY = 50

_SCHEDULERS = {Scheduler.LINEAR: "linear", Scheduler.COSINE: "cosine", Scheduler.CONSTANT: "constant_with_warmup"}
_OPTIMIZERS = {Optimizer.ADAFACTOR: "adafactor", Optimizer.SGD: "sgd"}


def training_arguments(job: TrainingInputs) -> TrainingArguments:
    """The tutorial's arguments; evaluation, saving and the epoch's order are ours, so Trainer's are disabled."""
    training = job.settings.training
    on_gpu = job.arithmetic.device.type == "cuda"
    optimizer: dict[str, Any] = {}
    if training.optimizer != Optimizer.ADAMW:
        # Trainer's own default is the AdamW variant that the installed torch runs best.
        optimizer["optim"] = _OPTIMIZERS[training.optimizer]
    # The kubeflow integration of Trainer posts synchronously; the job reports progress from a separate thread.
    os.environ.setdefault("DISABLE_KUBEFLOW_INTEGRATION", "TRUE")
    return TrainingArguments(
        output_dir=str(job.folder / TRAINER_FOLDER),
        num_train_epochs=training.epochs or 1,
        max_steps=training.max_steps or -1,
        per_device_train_batch_size=job.batch.rows,
        per_device_eval_batch_size=job.batch.rows,
        gradient_accumulation_steps=job.batch.accumulation,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        warmup_steps=training.warmup_percent / 100 if training.warmup_percent < 100 else planned_steps(job),
        lr_scheduler_type=_SCHEDULERS[training.scheduler],
        max_grad_norm=training.max_grad_norm,
        seed=training.seed,
        bf16=job.arithmetic.autocast == torch.bfloat16,
        fp16=job.arithmetic.autocast == torch.float16,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        accelerator_config={"non_blocking": on_gpu},
        remove_unused_columns=False,
        logging_nan_inf_filter=False,
        logging_steps=LOG_EVERY,
        eval_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        report_to="none",
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        **optimizer,
    )


class RecipeTrainer(SavingTrainer):
    """Mixed into Trainer or the user's subclass of it: our order, evaluation and checkpoints in Trainer's loop."""

    run: TrainingLoop
    weighs = False
    """Whether the losses of a step's micro-batches, each a mean over its own targets, are weighted by their number."""
    _step_targets: torch.Tensor

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[int]:
        return EpochSampler(len(train_dataset or self.train_dataset), self.args.seed)  # type: ignore[arg-type]

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Trainer's own; the loss is recorded."""
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        self.run.micro_batch(loss, inputs)
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[no-untyped-call]
        rate = self.lr_scheduler.get_last_lr()[0] if self.lr_scheduler is not None else math.nan
        self.run.state.steps.update(float(rate), norm)
        return norm

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Disabled: Trainer's own counts the model's parameters again in every step."""
        return 0

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """Trainer's own; the targets of the whole step are counted."""
        samples, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.weighs and samples:
            task = tasks.of(self.run.job.settings.task)
            targets = torch.stack([task.targets_by_row(batch["labels"]).sum() for batch in samples]).sum()
            self._step_targets = self.run.job.group.total(targets)
        return samples, items

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        """Trainer's or the user's own; in training, a micro-batch is weighted by its number of targets.

        One without any, as is possible with few masked tokens, documents of one token or in a process without rows,
        has weight 0: its mean is NaN.
        """
        task, labels, world = tasks.of(self.run.job.settings.task), inputs["labels"], self.run.job.group.world
        loss = super().compute_loss(model, inputs, *args, **options)
        job = self.run.job
        may_lack = task.masked or bool(job.settings.dataset.isolate_documents) or job.batch.step is not None
        counted = self.weighs or may_lack
        if not counted or not model.training or not isinstance(loss, torch.Tensor):
            return loss
        targets = task.targets_by_row(labels).sum().to(loss.device)
        if may_lack:
            loss = torch.where((targets == 0) & loss.isnan(), torch.zeros_like(loss), loss)
        if self.weighs:
            # Gradients are averaged over processes; Trainer has scaled the loss of a model that takes counts.
            scale = 1 if self.model_accepts_loss_kwargs else world.size
            loss = loss * (scale * targets / self._step_targets.clamp(min=1).to(loss.device))
        return loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Our figures under Trainer's names, for the user's callbacks."""
        figures = self.run.measure(self.state.global_step, self.state.epoch or 0.0)
        draw_as_trainer_does()
        names = {kind.name for kind in FIGURES}
        metrics = {
            f"eval_{name.removeprefix('eval_')}": value
            for name, value in figures.by_name().items()
            if name in names and value is not None
        }
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        if self.run.stopped_early:
            self.control.should_training_stop = True
            self.control.should_save = True
        return metrics

    def _evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        try:
            return self.evaluate()
        except EvaluationStopped:
            # Save without this evaluation: the next start sees that it is due, and does it first.
            self._stop_for_interrupt()
            raise

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            world = self.run.job.group.world
            restore_state(Path(checkpoint), world, self.args.seed, lambda: Trainer._load_rng_state(self, checkpoint))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        restore(model or self.model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not load_optimizer(self, Path(checkpoint)):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _stop_for_interrupt(self) -> None:
        self.run.job.interrupt.adopt()
        self.stopping = True
        if self.run.saved_step != self.state.global_step:
            self._save_checkpoint(self.model, None)
        self.run.stored()


class Flow(TrainerCallback):
    """Tells Trainer's loop what is due."""

    def __init__(self, run: TrainingLoop) -> None:
        self.run = run
        self.trainer: RecipeTrainer | None = None

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The step's clock starts here."""
        self.run.start_clock()
        if isinstance(self.trainer, RankedTrainer):
            self.trainer.batches.set_epoch(int(state.epoch or 0))

    def on_step_end(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **kwargs: Any) -> None:
        """Evaluation and checkpoint that fall on an epoch's last step wait for the epoch's end, in this order."""
        run, step, epoch = self.run, state.global_step, state.epoch
        run.step_done(step, epoch, lr_scheduler.get_last_lr()[0] if lr_scheduler is not None else 0.0)
        if run.stop_heard and self.trainer is not None:
            self.trainer._stop_for_interrupt()
        if not float(epoch).is_integer() and step < run.total:
            control.should_evaluate = run.evaluation_due(step, epoch)
            control.should_save = run.checkpoint_due(step, epoch)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The last step of an epoch, or of the run."""
        run, step, epoch = self.run, state.global_step, state.epoch
        control.should_evaluate = run.evaluation_due(step, epoch)
        control.should_save = run.checkpoint_due(step, epoch)


@dataclass(frozen=True)
class Trained:
    """Result of training.

    Attributes:
        state: history of the whole run.
        step: optimiser steps done.
        total: planned steps.
        epoch: epochs done.
    """

    state: TrainingHistory
    step: int
    total: int
    epoch: float


def build_trainer(job: TrainingInputs, run: TrainingLoop) -> RecipeTrainer:
    """Trainer, or the user's subclass, with our behaviour mixed in."""
    base = job.trainer_class
    ranked = () if job.batch.step is None else (RankedTrainer,)
    filled = (FilledTrainer,) if job.acceleration.compiled else ()
    divided = (DividedTrainer,) if is_divided(job.model) else ()
    bases = (RecipeTrainer, *ranked, *filled, *divided, *(() if base is Trainer else (base,)))
    kind: Any = RecipeTrainer if len(bases) == 1 else type(f"Run{base.__name__}", bases, {})
    flow = Flow(run)
    trainer: RecipeTrainer = kind(
        model=job.model,
        args=training_arguments(job),
        train_dataset=job.train_rows,
        data_collator=job.collate,
        processing_class=job.tokenizer,
        callbacks=[flow, *job.callbacks],
    )
    trainer.run = run

    run.trainer_loss_of = _own_loss(trainer) if computes_own_loss(base) else _plain_loss(trainer)
    flow.trainer = trainer
    trainer.remove_callback(PrinterCallback)
    if job.batch.accumulation > 1 or job.batch.step is not None:
        _accumulate_rightly(trainer, job)
    return trainer


def _accumulate_rightly(trainer: RecipeTrainer, job: TrainingInputs) -> None:
    """Make a step of several micro-batches equal to a step of one batch.

    Trainer assumes that a ``forward`` with keyword arguments divides its loss by the targets of the whole step.
    Many accept them and return the mean over their own batch; the sum is then too large by the number of batches.
    """
    if trainer.loss_is_scaled_for_ga is not None:
        return
    row = job.collate([job.train_rows[0]])
    row.pop(FILLER, None)
    if uses_item_count(trainer, row, job.settings.task, job.arithmetic):
        return
    theirs = job.trainer_class.compute_loss is not Trainer.compute_loss or trainer.compute_loss_func is not None
    # It is unknown what a user's loss is the mean of: Trainer divides it by the number of micro-batches.
    trainer.weighs = not theirs
    trainer.loss_is_scaled_for_ga = trainer.weighs


def computes_own_loss(kind: type[Trainer]) -> bool:
    """Whether a trainer class computes its own loss, in training or in evaluation."""
    return kind.compute_loss is not Trainer.compute_loss or kind.prediction_step is not Trainer.prediction_step


def _plain_loss(trainer: Trainer) -> TrainerLoss:
    """A batch's loss as in a plain Trainer's evaluation.

    For models whose loss Trainer does not know to be shifted (GPT-2 among them) it counts the first token of a row as
    an item too, which makes its ``eval_loss`` smaller by one part in the block size.
    """

    def loss(batch: dict[str, torch.Tensor], summed: float) -> float | None:
        items = trainer._get_num_items_in_batch([batch], trainer.args.device)
        return None if items is None else summed / float(items)

    return loss


def _own_loss(trainer: Trainer) -> TrainerLoss:
    """A batch's loss as the user's class computes it in an evaluation; costs another forward pass."""

    model: Any = trainer.model

    def loss(batch: dict[str, torch.Tensor], summed: float) -> float:
        with torch.random.fork_rng(devices=[trainer.args.device] if trainer.args.device.type == "cuda" else []):
            value, _, _ = trainer.prediction_step(model, dict(batch), prediction_loss_only=True)
        if value is None:
            raise InvalidError(
                ["spec.training.trainerClass: its prediction_step gives no loss for a batch with labels"]
            )
        return float(value)

    return loss


def train(job: TrainingInputs, resumed: Resumed | None = None) -> Trained:
    """Train to the end, from a checkpoint or from the start.

    Raises:
        DivergedError: a loss or weights are NaN or infinite; earlier checkpoints are kept.
        InterruptedRunError: a stop was requested; the step is finished and saved.
        torch.OutOfMemoryError: the accelerator's memory does not suffice.
    """
    checkpoint = resumed.folder if resumed else None
    state = TrainingHistory.load(checkpoint) if checkpoint else TrainingHistory()
    if resumed is not None:
        state.resumes.append(resumed.point)
    run = TrainingLoop(job, state)
    if job.metrics is not None:
        job.metrics.follow(state.metrics)
    job.observer.phase(JobPhase.TRAINING)
    with job.interrupt.deferred(), job.acceleration.training(job.model):
        trainer = build_trainer(job, run)
        if checkpoint is None:
            run.resumed(0)
            set_seed(job.settings.training.seed + job.group.world.rank)
            trainer.train()
        else:
            position = json.loads((checkpoint / "trainer_state.json").read_text())
            step, epoch = int(position["global_step"]), float(position["epoch"])
            run.resumed(step)
            if (checkpoint / BEST_FOLDER).is_dir():
                adopt_best(job.model, checkpoint / BEST_FOLDER, job.folder / BEST_FOLDER)
            trainer._load_from_checkpoint(str(checkpoint))
            if run.evaluation_due(step, epoch):
                # The run was stopped between this step and its evaluation.
                _evaluate_now(run, step, epoch)
                draw_in_checkpoint(checkpoint, job.group.world)
            if run.finished(step):
                return Trained(state, step, run.total, epoch)
            trainer.train(resume_from_checkpoint=str(checkpoint))
        step, epoch = trainer.state.global_step, float(trainer.state.epoch or 0.0)
        if not state.evaluated(step):
            # A user's callback ended the training between two evaluations.
            _evaluate_now(run, step, epoch)
        run.flush()
        run.stored()
    return Trained(state, step, run.total, epoch)


def _evaluate_now(run: TrainingLoop, step: int, epoch: float) -> None:
    try:
        run.measure(step, epoch)
    except EvaluationStopped:
        run.job.interrupt.check()
