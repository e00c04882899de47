"""Training by transformers' Trainer, with our evaluation, checkpoints, and stops that lose nothing.

The loss curve is Trainer's own. What is ours: losses of every step are kept, a non-finite one ends the run, evaluation
leaves the random state alone, and what a checkpoint holds is enough to go on bit-equal on a CPU.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from lmft_api.settings import Settings
from lmft_api.spec import Optimizer, Precision, Scheduler, Task, Weights
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_pt_utils import safe_globals

from lmft_job.data.rows import EpochSampler
from lmft_job.errors import DivergedError
from lmft_job.evaluation import Arithmetic, Collate, HeldOutFigures, Items, evaluate_held_out
from lmft_job.interrupt import Interrupt
from lmft_job.memory import Batch, simulate_shortage
from lmft_job.observer import Observer
from lmft_job.report.model import Resume
from lmft_job.run_state import Measured, RunState

BEST_FOLDER = "best"
LOG_EVERY = 50
_FLUSH_SECONDS = 0.25

_SCHEDULERS = {Scheduler.LINEAR: "linear", Scheduler.COSINE: "cosine", Scheduler.CONSTANT: "constant_with_warmup"}
_OPTIMIZERS = {Optimizer.ADAFACTOR: "adafactor", Optimizer.SGD: "sgd"}


class Uploads(Protocol):
    """Where finished checkpoint folders go; they belong to it from then on."""

    def submit(self, folder: Path, step: int) -> None:
        """Send one; waits for the one before."""

    def check(self) -> None:
        """Raise the failure of one, if there was one."""

    def wait(self) -> None:
        """Until all are there."""


@dataclass(frozen=True)
class Job:
    """All that training needs.

    Attributes:
        settings: resolved.
        model: to train, in FP32.
        tokenizer: saved with checkpoints.
        train_rows: map-style, indexed by ``epoch * length + row``.
        eval_rows: map-style.
        collate: rows to a batch, for both.
        arithmetic: device and precision.
        batch: rows in a forward pass, and passes in a step.
        folder: scratch space.
        uploads: takes checkpoints.
        interrupt: the wish to stop.
        observer: hears of steps, evaluations.
        beat: tells the watchdog and the journal that something moved; takes the step.
        trainer_class: Trainer, or the user's subclass.
        callbacks: the user's.
    """

    settings: Settings
    model: Any
    tokenizer: Any
    train_rows: Dataset[Any]
    eval_rows: Dataset[Any]
    collate: Collate
    arithmetic: Arithmetic
    batch: Batch
    folder: Path
    uploads: Uploads
    interrupt: Interrupt
    observer: Observer
    beat: Callable[[int], None] = lambda step: None
    trainer_class: type[Trainer] = Trainer
    callbacks: list[TrainerCallback] = field(default_factory=list)


def training_arguments(job: Job) -> TrainingArguments:
    """The tutorial's arguments; evaluation, saving and the epoch's order are ours, so Trainer's are off."""
    training = job.settings.training
    on_gpu = job.arithmetic.device.type == "cuda"
    optimizer = {} if training.optimizer == Optimizer.ADAMW else {"optim": _OPTIMIZERS[training.optimizer]}
    # The kubeflow integration of Trainer posts synchronously; the job reports progress from a thread of its own.
    os.environ.setdefault("DISABLE_KUBEFLOW_INTEGRATION", "TRUE")
    return TrainingArguments(
        output_dir=str(job.folder / "trainer"),
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
        activation_checkpointing=training.gradient_checkpointing,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        remove_unused_columns=False,
        logging_nan_inf_filter=False,
        logging_steps=LOG_EVERY,
        eval_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        report_to="none",
        **optimizer,
    )


def planned_steps(job: Job) -> int:
    """Optimiser steps of the whole run."""
    training = job.settings.training
    return training.max_steps or (training.epochs or 1) * steps_per_epoch(job)


def steps_per_epoch(job: Job) -> int:
    """Optimiser steps in one pass over the data; the last one may be smaller."""
    rows = len(job.train_rows)  # type: ignore[arg-type]
    return math.ceil(math.ceil(rows / job.batch.rows) / job.batch.accumulation)


class Run:
    """The state of one training run, and what is to happen at which step; :class:`RunTrainer` calls it."""

    def __init__(self, job: Job, state: RunState) -> None:
        self.job = job
        self.state = state
        self.total = planned_steps(job)
        self.tokens_per_second: float | None = None
        self.items_of: Items = lambda batch: None
        self._pending: list[torch.Tensor] = []
        self._step_loss: torch.Tensor | None = None
        self._step_tokens = 0
        self._mark = self._flushed = self._saved = time.monotonic()
        self.saved_step = 0

    # What is due

    def evaluation_due(self, step: int, epoch: float) -> bool:
        """After every n-th step or each epoch, and at the end."""
        every = self.job.settings.evaluation.every_steps
        regular = step % every == 0 if every else float(epoch).is_integer()
        return (regular or step >= self.total) and not self.state.evaluated(step)

    def checkpoint_due(self, step: int, epoch: float) -> bool:
        """By steps, or at each epoch and by the clock; and at the end. Never twice for a step."""
        policy = self.job.settings.checkpoint
        if step == self.saved_step:
            return False
        if step >= self.total:
            return True
        if policy.every_steps:
            return step % policy.every_steps == 0
        return float(epoch).is_integer() or time.monotonic() - self._saved >= 60 * policy.every_minutes

    @property
    def stopped_early(self) -> bool:
        """Whether the evaluations say that going on is of no use."""
        return self.state.exhausted(self.job.settings.training.early_stopping_patience)

    def finished(self, step: int) -> bool:
        """Whether nothing is left to train."""
        return step >= self.total or self.stopped_early

    # What happens in a step

    def micro_batch(self, loss: torch.Tensor, inputs: dict[str, Any]) -> None:
        """A forward and backward pass is done; its loss is already scaled to its share of the step."""
        self._step_loss = loss if self._step_loss is None else self._step_loss + loss
        ids = inputs.get("input_ids")
        self._step_tokens += ids.numel() if isinstance(ids, torch.Tensor) else 0

    def step_done(self, step: int, epoch: float, learning_rate: float) -> None:
        """An optimiser step is done."""
        now = time.monotonic()
        elapsed, self._mark = now - self._mark, now
        self.state.seconds += elapsed
        self.state.tokens += self._step_tokens
        rate = self._step_tokens / elapsed if elapsed > 0 else 0.0
        self.tokens_per_second = rate if self.tokens_per_second is None else 0.9 * self.tokens_per_second + 0.1 * rate
        self._step_tokens = 0
        if self._step_loss is not None:
            self._pending.append(self._step_loss)
            self._step_loss = None
        # Reading a loss waits for the device; on a GPU a few reads a second are enough.
        if self.job.arithmetic.device.type == "cpu" or now - self._flushed >= _FLUSH_SECONDS:
            self.flush()
        loss = self.state.losses[-1] if self.state.losses else None
        self.job.uploads.check()
        self.job.beat(step)
        self.job.observer.step(step, self.total, epoch, loss, learning_rate, self.tokens_per_second)

    def flush(self) -> None:
        """Read the losses of the steps since the last time.

        Raises:
            DivergedError: when one of them is NaN or infinite.
        """
        self._flushed = time.monotonic()
        if not self._pending:
            return
        values = torch.stack(self._pending).tolist() if len(self._pending) > 1 else [self._pending[0].item()]
        self._pending.clear()
        for value in values:
            self.state.losses.append(value)
            if not math.isfinite(value):
                raise self.diverged(f"the training loss became {value} at step {len(self.state.losses)}")

    def diverged(self, what: str) -> DivergedError:
        """The error, with what is left and what to do."""
        kept = f"the checkpoint of step {self.saved_step} is kept" if self.saved_step else "no checkpoint was made yet"
        return DivergedError(
            f"{what}; {kept}. Lower spec.training.learningRate, or set warmupPercent or precision FP32."
        )

    def measure(self, step: int, epoch: float) -> HeldOutFigures:
        """Evaluate the held-out rows and note the figures; the weights too, when they are the best and wanted."""
        job = self.job
        self.flush()

        def beat() -> None:
            job.beat(step)
            if job.interrupt.requested:
                raise EvaluationStopped

        figures = evaluate_held_out(
            job.model,
            job.eval_rows,
            job.collate,
            job.settings.task,
            batch_size=job.batch.rows,
            arithmetic=job.arithmetic,
            beat=beat,
            items_of=self.items_of,
        )
        measured = Measured(step, epoch, self.state.train_loss_since_evaluation(), figures)
        self.state.evaluations.append(measured)
        if job.settings.output.weights == Weights.BEST and self.state.best() is measured:
            job.model.save_pretrained(job.folder / BEST_FOLDER)
        job.observer.evaluation(measured.evaluation())
        self._mark = time.monotonic()
        return figures

    def ready_to_save(self, step: int) -> None:
        """Raises DivergedError rather than let a checkpoint hold weights that are no numbers."""
        self.flush()
        if not all(bool(torch.isfinite(weight).all()) for weight in self.job.model.parameters()):
            raise self.diverged(f"weights became NaN or infinite by step {step}")

    def saved(self, folder: Path, step: int) -> None:
        """A checkpoint lies in a folder; complete it and send it."""
        self.state.save(folder)
        best = self.job.folder / BEST_FOLDER
        if best.is_dir():
            shutil.copytree(best, folder / BEST_FOLDER)
        self.job.uploads.submit(folder, step)
        self.saved_step = step
        self._mark = self._saved = time.monotonic()

    def resumed(self, step: int) -> None:
        """Training begins, from a checkpoint of this step or from 0."""
        self.saved_step = step
        self._mark = self._saved = time.monotonic()


def draw_as_trainer_does() -> None:
    """One draw from the global generator, which a plain Trainer's evaluation costs (its DataLoader's base seed).

    Without it the dropout masks after the first evaluation would not be those of the plain recipe.
    """
    torch.empty((), dtype=torch.int64).random_()


def draw_in_checkpoint(folder: Path) -> None:
    """The same draw, in the random state that a checkpoint holds."""
    path = folder / "rng_state.pth"
    with safe_globals():
        states = torch.load(path, weights_only=True)
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(states["cpu"])
        draw_as_trainer_does()
        states["cpu"] = torch.random.get_rng_state()
    torch.save(states, path)


class EvaluationStopped(Exception):
    """A stop was asked for while evaluating; what was counted so far is dropped."""


class RunTrainer(Trainer):
    """Mixed into Trainer or the user's subclass of it: our order, evaluation and checkpoints in Trainer's loop."""

    run: Run

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[int]:
        return EpochSampler(len(train_dataset or self.train_dataset), self.args.seed)  # type: ignore[arg-type]

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Trainer's own; the loss is kept."""
        simulate_shortage(inputs, self.state.global_step)
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        self.run.micro_batch(loss, inputs)
        return loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Our figures under Trainer's name, for the user's callbacks."""
        figures = self.run.measure(self.state.global_step, self.state.epoch or 0.0)
        draw_as_trainer_does()
        metrics = {"eval_loss": figures.loss}
        if figures.perplexity is not None:
            metrics["eval_perplexity"] = figures.perplexity
        if figures.accuracy is not None:
            metrics["eval_accuracy"] = figures.accuracy
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

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        self.run.ready_to_save(step)
        super()._save_checkpoint(model, trial)
        self.run.saved(Path(self.args.output_dir) / f"checkpoint-{step}", step)

    def _stop_for_interrupt(self) -> None:
        if self.run.saved_step != self.state.global_step:
            self._save_checkpoint(self.model, None)
        self.run.job.uploads.wait()
        self.run.job.interrupt.check()


class Flow(TrainerCallback):
    """Tells Trainer what is due."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.trainer: RunTrainer | None = None

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The step's clock starts here."""
        self.run._mark = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **kwargs: Any) -> None:
        """Evaluation and checkpoint that fall on an epoch's last step wait for the epoch's end, in this order."""
        run, step, epoch = self.run, state.global_step, state.epoch
        run.step_done(step, epoch, lr_scheduler.get_last_lr()[0] if lr_scheduler is not None else 0.0)
        if run.job.interrupt.requested and self.trainer is not None:
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
    """How training ended.

    Attributes:
        state: the whole run's story.
        step: optimiser steps done.
        total: planned.
        epoch: epochs done.
    """

    state: RunState
    step: int
    total: int
    epoch: float


def build_trainer(job: Job, run: Run) -> RunTrainer:
    """Trainer, or the user's subclass, with our behaviour mixed in."""
    base = job.trainer_class
    kind = RunTrainer if base is Trainer else type(f"Run{base.__name__}", (RunTrainer, base), {})
    flow = Flow(run)
    trainer: RunTrainer = kind(
        model=job.model,
        args=training_arguments(job),
        train_dataset=job.train_rows,
        data_collator=job.collate,
        processing_class=job.tokenizer,
        callbacks=[flow, *job.callbacks],
    )
    trainer.run = run
    run.items_of = lambda batch: trainer._get_num_items_in_batch([batch], job.arithmetic.device)
    flow.trainer = trainer
    trainer.remove_callback(PrinterCallback)
    return trainer


def train(job: Job, checkpoint: Path | None, resume: Resume | None = None) -> Trained:
    """Train to the end, from a checkpoint's folder or from the start.

    Raises:
        DivergedError: a loss or weights that are no numbers; earlier checkpoints are kept.
        InterruptedRunError: a stop was asked for; the step is finished and saved.
        torch.OutOfMemoryError: the accelerator's memory does not suffice.
    """
    state = RunState.load(checkpoint) if checkpoint else RunState()
    if resume is not None:
        state.resumes.append(resume)
    run = Run(job, state)
    with job.interrupt.deferred():
        trainer = build_trainer(job, run)
        if checkpoint is None:
            run.resumed(0)
            set_seed(job.settings.training.seed)
            trainer.train()
        else:
            position = json.loads((checkpoint / "trainer_state.json").read_text())
            step, epoch = int(position["global_step"]), float(position["epoch"])
            run.resumed(step)
            if (checkpoint / BEST_FOLDER).is_dir():
                shutil.copytree(checkpoint / BEST_FOLDER, job.folder / BEST_FOLDER, dirs_exist_ok=True)
            trainer._load_from_checkpoint(str(checkpoint))
            if run.evaluation_due(step, epoch):
                # The run was stopped between this step and its evaluation.
                _evaluate_first(run, step, epoch)
                draw_in_checkpoint(checkpoint)
            if run.finished(step):
                return Trained(state, step, run.total, epoch)
            trainer.train(resume_from_checkpoint=str(checkpoint))
        run.flush()
        job.uploads.wait()
        job.interrupt.check()
    return Trained(state, trainer.state.global_step, run.total, float(trainer.state.epoch or 0.0))


def _evaluate_first(run: Run, step: int, epoch: float) -> None:
    try:
        run.measure(step, epoch)
    except EvaluationStopped:
        run.job.interrupt.check()


def arithmetic_for(settings: Settings, device: torch.device) -> Arithmetic:
    """Auto is BF16 where the accelerator computes in it, FP32 elsewhere."""
    wanted = settings.training.precision
    if wanted == Precision.AUTO:
        fits = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return Arithmetic(device, torch.bfloat16 if fits else None)
    return Arithmetic(device, {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}.get(wanted))
