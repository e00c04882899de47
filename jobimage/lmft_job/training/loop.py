"""State of one training run: its inputs, what is due at which step, and what is kept."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback

from lmft_api.spec import Weights
from lmft_api.spec.resolved import Settings
from lmft_api.wire.layout import BEST_FOLDER
from lmft_api.wire.progress import JobPhase
from lmft_api.wire.ranks import NODE_NAME_VARIABLE
from lmft_job.adapters.attach import trained
from lmft_job.data.chat.template.rendering import ChatTemplate
from lmft_job.data.isolated.collate import real_tokens
from lmft_job.data.rows import Rows
from lmft_job.distributed.group import SOLO, Group, SteadyCheck
from lmft_job.distributed.pace import Pace, Stragglers, device_pace
from lmft_job.errors import DivergedError
from lmft_job.evaluation.held_out import Beat, Collate, HeldOutFigures, Measurement, TrainerLoss, evaluate_held_out
from lmft_job.evaluation.samples import answer_prompts
from lmft_job.evaluation.uncertainty import Units
from lmft_job.models.device import Arithmetic
from lmft_job.observers.background import Followers
from lmft_job.observers.events import Observer, StepDone
from lmft_job.process.signals import Interrupt
from lmft_job.sharding.divide import local
from lmft_job.training.acceleration.selection import PLAIN, Acceleration
from lmft_job.training.batch import Batch
from lmft_job.training.history import EvaluationPoint, TrainingHistory
from lmft_job.training.saving.writer import CheckpointSink, CheckpointWriter
from lmft_job.training.sharded.parts import keep_best

TRAINER_FOLDER = "trainer"
_FLUSH_SECONDS = 0.25


@dataclass(frozen=True)
class TrainingInputs:
    """Everything that training needs.

    Attributes:
        settings: resolved settings.
        model: to train; what is trained of it is in FP32.
        tokenizer: saved in checkpoints.
        train_rows: map-style, indexed by ``epoch * length + row``.
        eval_rows: map-style.
        collate: makes a batch of rows, for both.
        arithmetic: device and precision.
        batch: rows in a forward pass, and passes in a step.
        folder: scratch space.
        uploads: takes checkpoints.
        interrupt: requests to stop.
        observer: receives steps and evaluations.
        beat: reports progress to the watchdog and the journal; takes the step.
        trainer_class: Trainer, or the user's subclass.
        callbacks: the user's callbacks.
        before: baseline of the held-out data by units; None before it is measured.
        acceleration: accelerations of its steps.
        chat: template of the conversations that the model answers; None where it continues text.
        group: the processes of the run.
        metrics: stores the lines of steps and evaluations; None in processes that store nothing.
    """

    settings: Settings
    model: Any
    tokenizer: Any
    train_rows: Rows
    eval_rows: Rows
    collate: Collate
    arithmetic: Arithmetic
    batch: Batch
    folder: Path
    uploads: CheckpointSink
    interrupt: Interrupt
    observer: Observer
    beat: Callable[[int], None] = lambda step: None
    trainer_class: type[Trainer] = Trainer
    callbacks: list[TrainerCallback] = field(default_factory=list)
    before: Units | None = None
    acceleration: Acceleration = PLAIN
    chat: ChatTemplate | None = None
    group: Group = SOLO
    metrics: Followers | None = None

    def evaluate(self, beat: Beat, trainer_loss_of: TrainerLoss = lambda batch, summed: None) -> Measurement:
        """Figures of the current model."""
        with self.acceleration.evaluating(self.model):
            return evaluate_held_out(
                self.model,
                self.eval_rows,
                self.collate,
                self.settings.task,
                batch_size=self.batch.rows,
                arithmetic=self.arithmetic,
                beat=beat,
                trainer_loss_of=trainer_loss_of,
                before=self.before,
                group=self.group,
            )

    def answer(self, limit: int | None, beat: Beat) -> list[str]:
        """The current model's answers to the prompts; ``limit`` is how many tokens fit into it."""
        with self.acceleration.generating():
            return answer_prompts(
                self.model,
                self.tokenizer,
                self.settings.task,
                self.settings.sample,
                seed=self.settings.training.seed,
                limit=limit,
                arithmetic=self.arithmetic,
                beat=beat,
                chat=self.chat,
            )


def planned_steps(job: TrainingInputs) -> int:
    """Optimiser steps of the whole run."""
    return steps_of(job.settings, len(job.train_rows), job.batch)


def steps_of(settings: Settings, rows: int, batch: Batch) -> int:
    """Optimiser steps of a run over this many rows; the last one of an epoch may be smaller."""
    training = settings.training
    per_epoch = math.ceil(rows / batch.step_rows)
    return training.max_steps or (training.epochs or 1) * per_epoch


@dataclass(frozen=True)
class Heard:
    """What all processes have heard at a step.

    Attributes:
        stop: somebody was asked to stop.
        save: a checkpoint is due by the clock.
        flush: losses are to be read.
    """

    stop: bool = False
    save: bool = False
    flush: bool = False


class EvaluationStopped(Exception):
    """A stop was requested during an evaluation; its partial result is discarded."""


class TrainingLoop:
    """The state of one training run, and what is due at which step; :class:`RecipeTrainer` calls it."""

    def __init__(self, job: TrainingInputs, state: TrainingHistory) -> None:
        self.job = job
        self.state = state
        self.total = planned_steps(job)
        self.tokens_per_second: float | None = None
        self.trainer_loss_of: TrainerLoss = lambda batch, summed: None
        pace = device_pace() if job.arithmetic.device.type == "cuda" and not job.group.world.alone else Pace()
        node = os.environ.get(NODE_NAME_VARIABLE, "")
        self.stragglers = Stragglers(job.group, node, job.observer.straggler, pace)
        self._pending: list[torch.Tensor] = []
        self._step_loss: torch.Tensor | None = None
        self.tokens: torch.Tensor | int = 0
        self._seconds = 0.0
        self._mark = self._flushed = self._saved = self._saving = time.monotonic()
        self.writer = CheckpointWriter(job.model, job.group, job.uploads, job.folder, job.observer.note)
        self.saved_step = 0
        self.idle = False
        """Whether the pass has no row of its own."""
        self._agreement, self._heard, self._said_step = job.group.agreement(), Heard(), 0

    # What is due

    def evaluation_due(self, step: int, epoch: float) -> bool:
        """After every n-th step or each epoch, and at the end."""
        every = self.job.settings.evaluation.every_steps
        regular = step % every == 0 if every else float(epoch).is_integer()
        return (regular or step >= self.total) and not self.state.evaluated(step)

    def checkpoint_due(self, step: int, epoch: float) -> bool:
        """By steps, or at each epoch and by time; and at the end. Never twice for a step."""
        policy = self.job.settings.checkpoint
        if step == self.saved_step:
            return False
        if step >= self.total:
            return True
        if policy.every_steps:
            return step % policy.every_steps == 0
        return float(epoch).is_integer() or self._heard.save

    @property
    def stop_heard(self) -> bool:
        """Whether to stop after this step; the same in every process."""
        return self._heard.stop or (self.job.group.world.alone and self.job.interrupt.requested)

    def _exchange(self, step: int, now: float) -> None:
        """Say what is due here, and hear what is due for all: by the clock of rank 0 what goes by the clock."""
        job, main = self.job, self.job.group.world.main
        save = main and now - self._saved >= 60 * job.settings.checkpoint.every_minutes
        # Reading a loss or a count waits for the device; a few reads a second are enough.
        flush = main and (self._flushes_always or now - self._flushed >= _FLUSH_SECONDS)
        said_before, self._said_step = self._said_step, step
        self._heard = Heard(*self._agreement.exchange(job.interrupt.requested, save, flush))
        if not job.group.world.alone and said_before <= self.saved_step:
            self._heard = replace(self._heard, save=False)  # it was said before the last checkpoint

    @property
    def _flushes_always(self) -> bool:
        return self.job.arithmetic.device.type == "cpu" and self.job.group.world.alone

    @property
    def stopped_early(self) -> bool:
        """Whether early stopping is due, by the evaluations."""
        return self.state.exhausted(self.job.settings.training.early_stopping_patience)

    def finished(self, step: int) -> bool:
        """Whether nothing is left to train."""
        return step >= self.total or self.stopped_early

    # What happens in a step

    def micro_batch(self, loss: torch.Tensor, inputs: dict[str, Any]) -> None:
        """A forward and backward pass is done; its loss is already scaled to its share of the step."""
        self._step_loss = loss if self._step_loss is None else self._step_loss + loss
        if self.idle:
            return
        mask, ids, positions = (inputs.get(name) for name in ("attention_mask", "input_ids", "position_ids"))
        if self.job.chat is not None and isinstance(positions, torch.Tensor):
            self.tokens = self.tokens + real_tokens(positions)
        elif isinstance(mask, torch.Tensor):
            self.tokens = self.tokens + mask.sum()  # padding does not count
        elif isinstance(ids, torch.Tensor):
            self.tokens = self.tokens + ids.numel()

    def step_done(self, step: int, epoch: float, learning_rate: float) -> None:
        """An optimiser step is done."""
        now = time.monotonic()
        elapsed, self._mark = now - self._mark, now
        self.state.seconds += elapsed
        self._seconds += elapsed
        if self._step_loss is not None:
            self._pending.append(self._step_loss)
            self._step_loss = None
        self._exchange(step, now)
        if self._heard.flush:
            self.flush()
        loss = self.state.losses[-1] if self.state.losses else None
        self.state.steps.step_done(step, epoch, self.tokens_per_second)
        self.stragglers.step(step)
        self.job.uploads.check()
        self.job.beat(step)
        done = StepDone(step, self.total, epoch, loss, learning_rate, self.tokens_per_second)
        self.job.observer.step(done)

    def flush(self) -> None:
        """Read losses and tokens of the steps since the last call.

        Raises:
            DivergedError: a loss is NaN or infinite.
        """
        self._flushed = time.monotonic()
        if not self._pending:
            return
        seconds = self._seconds
        mine = torch.stack(self._pending).tolist() if len(self._pending) > 1 else [self._pending[0].item()]
        tokens, values = self._of_all(int(self.tokens), mine)
        self.tokens, self._seconds = 0, 0.0
        self.state.tokens += tokens
        rate = tokens / seconds if seconds > 0 else 0.0
        self.tokens_per_second = rate if self.tokens_per_second is None else 0.9 * self.tokens_per_second + 0.1 * rate
        self._pending.clear()
        for value in values:
            self.state.losses.append(value)
            if not math.isfinite(value):
                raise self.diverged(f"the training loss became {value} at step {len(self.state.losses)}")

    def _of_all(self, tokens: int, losses: list[float]) -> tuple[int, list[float]]:
        """Tokens and losses of all processes: each has scaled its share of a loss as if the mean were taken."""
        world = self.job.group.world
        if world.alone:
            return tokens, losses
        sums = self.job.group.sums(np.array([tokens, *losses]))
        return int(sums[0]), (sums[1:] / world.size).tolist()

    def diverged(self, what: str) -> DivergedError:
        """The error, with what is kept and what to do."""
        kept = f"the checkpoint of step {self.saved_step} is kept" if self.saved_step else "no checkpoint was made yet"
        return DivergedError(
            f"{what}; {kept}. Lower spec.training.learningRate, or set warmupPercent or precision FP32."
        )

    def measure(self, step: int, epoch: float) -> HeldOutFigures:
        """Evaluate the held-out rows and record the figures; the weights too, if they are the best and wanted."""
        job = self.job
        self.stragglers.pace.interrupted()
        self.flush()
        job.observer.phase(JobPhase.EVALUATING)

        stop = SteadyCheck(job.group, lambda: job.interrupt.requested)

        def beat() -> None:
            job.beat(step)
            if stop():
                job.interrupt.adopt()
                raise EvaluationStopped

        figures = job.evaluate(beat, self.trainer_loss_of).figures
        if figures.perplexity is not None and math.isinf(figures.perplexity):
            raise self.diverged(f"the perplexity became infinite at step {step} (its loss is {figures.loss:.4g})")
        measured = EvaluationPoint(step, epoch, self.state.train_loss_since_evaluation(), figures)
        self.state.evaluations.append(measured)
        best = job.settings.output.weights == Weights.BEST and self.state.best() is measured
        if best:
            keep_best(job.model, job.folder / BEST_FOLDER, job.group)
        job.observer.evaluation(measured.evaluation())
        job.observer.phase(JobPhase.TRAINING)
        self._mark = time.monotonic()
        return figures

    def ready_to_save(self, step: int) -> None:
        """Raises DivergedError so that no checkpoint contains weights that are NaN or infinite."""
        self.flush()
        self._saving = time.monotonic()
        finite = all(bool(torch.isfinite(local(weight)).all()) for weight in trained(self.job.model))
        if not self.job.group.all(finite):
            raise self.diverged(f"weights became NaN or infinite by step {step}")

    def saved(self, folder: Path, step: int, *, stopping: bool) -> None:
        """A checkpoint's small files were saved in a folder; complete it and hand it on.

        Args:
            folder: the checkpoint.
            step: optimiser steps done.
            stopping: whether training is interrupted after it.
        """
        times = (self._saved, self._saving)
        self.writer.store(folder, step, self.state, times, last=stopping or self.finished(step))
        self.saved_step = step
        self._mark = self._saved = time.monotonic()
        self.state.saving_seconds += self._saved - self._saving

    def stored(self) -> None:
        """Wait until all checkpoints are uploaded; end if a stop was requested, of any process.

        Raises:
            InterruptedRunError: a stop was requested.
        """
        self.writer.wait()
        if self.job.group.any(self.job.interrupt.requested):
            self.job.interrupt.adopt()
        self.job.interrupt.check()

    def start_clock(self) -> None:
        """Steps begin now; earlier time does not count as theirs."""
        self._mark = time.monotonic()

    def resumed(self, step: int) -> None:
        """Training begins, from a checkpoint of this step or from 0."""
        self.saved_step = step
        self._mark = self._saved = time.monotonic()
