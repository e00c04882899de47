"""Figures on the held-out data: loss, perplexity, accuracy, and the loss as a plain Trainer would report it.

Does not use the global random state, so that an evaluation does not change the training after it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from lmft_api.tasks import Task
from lmft_job import tasks
from lmft_job.data.rows import Rows
from lmft_job.errors import DivergedError
from lmft_job.evaluation.likelihood import recorded
from lmft_job.evaluation.metrics import load_metric
from lmft_job.evaluation.uncertainty import Units
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

    Raises:
        DivergedError: a batch's loss is NaN or infinite; a mean would hide or spread it.
    """
    kind = tasks.of(task)
    losses: list[float] = []
    counts: list[int] = []
    sizes: list[int] = []
    trainers: list[float] = []
    guesses: list[int] = []
    truths: list[int] = []
    unit_losses: list[float] = []
    unit_targets: list[int] = []
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), arithmetic.context(), recorded(model, task) as rows_of_batch:
            for batch in _batches(rows, collate, batch_size, arithmetic.device):
                labels = batch["labels"]
                outputs = model(**batch)
                own = float(outputs.loss)
                by_row = rows_of_batch.of(getattr(outputs, "logits", None), labels, task)
                by_target = kind.targets_by_row(labels).tolist()
                targets = sum(by_target)
                if targets:
                    loss = _likelihood(own, by_row, targets)
                    theirs = trainer_loss_of(batch, own * targets)
                    theirs = own if theirs is None else theirs
                    if not math.isfinite(loss + theirs):
                        raise DivergedError(
                            f"the evaluation became {loss + theirs} at batch {len(losses) + 1}. Lower "
                            "spec.training.learningRate, or use precision BF16 or FP32 instead of FP16."
                        )
                    losses.append(loss * targets)
                    counts.append(targets)
                    sizes.append(len(labels))
                    trainers.append(theirs * len(labels))
                if by_row is not None:
                    unit_losses += by_row
                    unit_targets += by_target
                if kind.has_labels:
                    guesses += outputs.logits.argmax(-1).tolist()
                    truths += labels.tolist()
                beat()
    finally:
        model.train(was_training)
    mean = load_metric("perplexity").compute(losses=losses, counts=counts)
    trainer_loss = math.fsum(trainers) / sum(sizes)
    perplexity = accuracy = right = None
    if kind.has_labels:
        accuracy = load_metric("accuracy").compute(predictions=guesses, references=truths)["accuracy"]
        right = np.equal(guesses, truths).astype(np.float64)
    else:
        perplexity = mean["perplexity"]
    units = Units(np.array(unit_losses), np.array(unit_targets, np.float64), right)
    known = units if len(unit_losses) == len(rows) else None
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


def _batches(rows: Rows, collate: Collate, batch_size: int, device: torch.device) -> Any:
    # A DataLoader draws its workers' base seed from the global generator unless it is given a generator of its own.
    order = BatchSampler(SequentialSampler(rows), batch_size, drop_last=False)
    pinned = device.type == "cuda"
    loader: DataLoader[Any] = DataLoader(
        rows,  # type: ignore[arg-type]
        batch_sampler=order,
        collate_fn=collate,
        pin_memory=pinned,
        generator=torch.Generator().manual_seed(0),
    )
    for batch in loader:
        yield {key: value.to(device, non_blocking=pinned) for key, value in batch.items()}
