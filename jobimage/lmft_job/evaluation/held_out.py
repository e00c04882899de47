"""Figures on the held-out data: loss, perplexity, accuracy, and the loss as a plain Trainer would report it.

Does not use the global random state, so that an evaluation does not change the training after it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from lmft_api.tasks import Task
from lmft_job import tasks
from lmft_job.data.rows import FILLER, Rows
from lmft_job.distributed.group import SOLO, Group
from lmft_job.distributed.world import World
from lmft_job.errors import DivergedError
from lmft_job.evaluation.divided import BatchFigures, dealt, together
from lmft_job.evaluation.likelihood import recorded
from lmft_job.evaluation.metrics import load_metric
from lmft_job.evaluation.uncertainty import Units
from lmft_job.models.config import without_cache
from lmft_job.models.device import Arithmetic

_ADDED = 1e-4
"""Relative difference above which the loss is not the likelihood alone; summation order changes it by less."""

Collate = Callable[[list[Any]], dict[str, torch.Tensor]]
Beat = Callable[[], None]
TrainerLoss = Callable[[dict[str, torch.Tensor], float], float | None]
"""Maps a batch and its summed loss to the loss of Trainer's own evaluation; None for the plain mean."""


@dataclass(frozen=True)
class HeldOutFigures:
    """One evaluation.

    Attributes:
        loss: mean negative log-likelihood over all targets, in nats; each target weighs the same. What a model adds to
            its loss for training, such as a router's balancing loss, is not included.
        trainer_loss: mean of the batches' losses weighted by rows, which is what Trainer calls ``eval_loss``. The same
            as ``loss`` where every row has the same number of targets; with a trainer class that computes a loss of its
            own, the mean of that.
        perplexity: exp(loss) for language models.
        accuracy: share of rows labelled correctly, for classification.
        loss_error: standard error of the loss over blocks, or rows; None where it cannot be computed.
        accuracy_error: standard error of the accuracy over rows.
        loss_change_error: standard error of the change of the loss since the baseline.
        accuracy_change_error: standard error of the change of the accuracy.
    """

    loss: float
    trainer_loss: float
    perplexity: float | None = None
    accuracy: float | None = None
    loss_error: float | None = None
    accuracy_error: float | None = None
    loss_change_error: float | None = None
    accuracy_change_error: float | None = None

    @property
    def perplexity_error(self) -> float | None:
        """Standard error of the perplexity, by the delta method: the perplexity times that of the loss."""
        if self.perplexity is None or self.loss_error is None or not math.isfinite(self.perplexity):
            return None
        return self.perplexity * self.loss_error

    def by_name(self) -> dict[str, float | None]:
        """Figures by their names in :mod:`lmft_api.figures`, report and status."""
        return {
            "eval_loss": self.loss,
            "trainer_eval_loss": self.trainer_loss,
            "perplexity": self.perplexity,
            "accuracy": self.accuracy,
            "eval_loss_standard_error": self.loss_error,
            "perplexity_standard_error": self.perplexity_error,
            "accuracy_standard_error": self.accuracy_error,
            "eval_loss_change_standard_error": self.loss_change_error,
            "accuracy_change_standard_error": self.accuracy_change_error,
        }

    def to_json(self) -> dict[str, float | None]:
        """As stored in checkpoints and ``before.json``."""
        return {
            "loss": self.loss,
            "trainer_loss": self.trainer_loss,
            "perplexity": self.perplexity,
            "accuracy": self.accuracy,
            "loss_error": self.loss_error,
            "accuracy_error": self.accuracy_error,
            "loss_change_error": self.loss_change_error,
            "accuracy_change_error": self.accuracy_change_error,
        }

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> "HeldOutFigures":
        """Read back, including the format of earlier releases; raises KeyError if a loss is missing."""
        return cls(
            loss=written["loss"],
            trainer_loss=written["trainer_loss"],
            perplexity=written.get("perplexity"),
            accuracy=written.get("accuracy"),
            loss_error=written.get("loss_error"),
            accuracy_error=written.get("accuracy_error"),
            loss_change_error=written.get("loss_change_error"),
            accuracy_change_error=written.get("accuracy_change_error"),
        )


@dataclass(frozen=True)
class Measurement:
    """An evaluation, and the units that it is computed from.

    Attributes:
        figures: of all held-out data.
        units: figures by block or row; None for a model whose logits do not allow it.
    """

    figures: HeldOutFigures
    units: Units | None


def evaluate_held_out(
    model: torch.nn.Module,
    rows: Rows,
    collate: Collate,
    task: Task,
    *,
    batch_size: int,
    arithmetic: Arithmetic,
    beat: Beat = lambda: None,
    trainer_loss_of: TrainerLoss = lambda batch, summed: None,
    before: Units | None = None,
    group: Group = SOLO,
) -> Measurement:
    """Evaluate a model.

    Args:
        model: takes a batch with ``labels`` and returns ``loss`` and ``logits``.
        rows: held-out rows, with a length.
        collate: makes a batch of rows.
        task: determines the targets.
        batch_size: rows in a batch.
        arithmetic: device and precision.
        beat: called after every batch; an exception it raises ends the evaluation.
        trainer_loss_of: computes :attr:`HeldOutFigures.trainer_loss`.
        before: units of the baseline, for the standard error of the change since then.
        group: the processes among which the batches are divided; all get the same figures.

    Raises:
        DivergedError: a batch's loss is NaN or infinite; a mean would hide or spread it.
    """
    kind = tasks.of(task)
    parts: list[BatchFigures] = []
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), arithmetic.context(), without_cache(model), recorded(model, task) as rows_of_batch:
            for batch in _batches(rows, collate, batch_size, arithmetic.device, group.world):
                labels = batch["labels"]
                real = len(labels) - len(batch.pop(FILLER, ()))
                outputs = model(**batch)
                own = float(outputs.loss)
                by_row = rows_of_batch.of(getattr(outputs, "logits", None), labels, task)
                by_target = kind.targets_by_row(labels).tolist()[:real]
                part = BatchFigures(real, sum(by_target))
                if part.targets:
                    loss = _likelihood(own, by_row, part.targets)
                    theirs = trainer_loss_of(batch, own * part.targets)
                    theirs = own if theirs is None else theirs
                    part.loss, part.trainer_loss = loss * part.targets, theirs * real
                    if group.world.alone:
                        _require_finite(part, len(parts) + 1)
                if by_row is not None:
                    part.unit_losses, part.unit_targets = by_row[:real], by_target
                if kind.has_labels:
                    part.guesses, part.truths = outputs.logits[:real].argmax(-1).tolist(), labels[:real].tolist()
                parts.append(part)
                beat()
    finally:
        model.train(was_training)
    parts = together(parts, -(-len(rows) // batch_size), group)
    for number, part in enumerate(parts, 1):
        _require_finite(part, number)
    return _measurement(parts, len(rows), before, labelled=kind.has_labels)


def _require_finite(part: BatchFigures, number: int) -> None:
    if not math.isfinite(part.loss + part.trainer_loss):
        raise DivergedError(
            f"the evaluation became {(part.loss + part.trainer_loss) / max(part.rows, part.targets, 1)} at batch "
            f"{number}. Lower spec.training.learningRate, or use precision BF16 or FP32 instead of FP16."
        )


def _measurement(parts: list[BatchFigures], rows: int, before: Units | None, *, labelled: bool) -> Measurement:
    """The figures of all batches, in the order of the rows."""
    counted = [part for part in parts if part.targets]
    mean = load_metric("perplexity").compute(
        losses=[part.loss for part in counted], counts=[part.targets for part in counted]
    )
    trainer_loss = math.fsum(part.trainer_loss for part in counted) / sum(part.rows for part in counted)
    perplexity = accuracy = right = None
    if labelled:
        guesses, truths = (list(chain(*lists)) for lists in zip(*((p.guesses, p.truths) for p in parts), strict=True))
        accuracy = load_metric("accuracy").compute(predictions=guesses, references=truths)["accuracy"]
        right = np.equal(guesses, truths).astype(np.float64)
    else:
        perplexity = mean["perplexity"]
    unit_losses = [loss for part in parts for loss in part.unit_losses]
    unit_targets = [targets for part in parts for targets in part.unit_targets]
    units = Units(np.array(unit_losses), np.array(unit_targets, np.float64), right)
    known = units if len(unit_losses) == rows else None
    return Measurement(
        _with_errors(HeldOutFigures(mean["loss"], trainer_loss, perplexity, accuracy), known, before), known
    )


def _with_errors(figures: HeldOutFigures, units: Units | None, before: Units | None) -> HeldOutFigures:
    if units is None:
        return figures
    return replace(
        figures,
        loss_error=units.loss_error,
        accuracy_error=units.accuracy_error,
        loss_change_error=units.loss_change_error(before) if before else None,
        accuracy_change_error=units.accuracy_change_error(before) if before else None,
    )


def _likelihood(own: float, by_row: list[float] | None, targets: int) -> float:
    """The mean negative log-likelihood of a batch: the model's own loss, unless that includes other terms.

    Mixtures of experts add their routers' losses, other models add regularisation or the losses of further heads.
    """
    if by_row is None:
        return own
    plain = math.fsum(by_row) / targets
    return plain if abs(plain - own) > _ADDED * max(1.0, abs(plain)) else own


def _batches(rows: Rows, collate: Collate, batch_size: int, device: torch.device, world: World) -> Any:
    # A DataLoader draws its workers' base seed from the global generator unless it is given a generator of its own.
    order = BatchSampler(SequentialSampler(rows), batch_size, drop_last=False)
    pinned = device.type == "cuda"
    loader: DataLoader[Any] = DataLoader(
        rows,  # type: ignore[arg-type]
        batch_sampler=order if world.alone else dealt(list(order), world),
        collate_fn=collate,
        pin_memory=pinned,
        generator=torch.Generator().manual_seed(0),
    )
    for batch in loader:
        yield {key: value.to(device, non_blocking=pinned) for key, value in batch.items()}
