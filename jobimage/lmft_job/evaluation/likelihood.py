"""The negative log-likelihood of each held-out row, at little more than the cost of the model's own loss."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import cross_entropy, pad
from transformers.loss.loss_utils import ForCausalLMLoss

from lmft_api.tasks import Task
from lmft_job import tasks
from lmft_job.data.isolated.boundaries import BOUNDARIES
from lmft_job.tasks.base import IGNORED


class RowLosses:
    """Replaces transformers' loss of causal models: the same mean, of losses that are kept row by row.

    Over a vocabulary of 50,000 a second cross entropy costs as much as several layers of a small model.

    Args:
        has_logits: whether the model's outputs have logits, from which losses that were not kept can be computed.
    """

    def __init__(self, *, has_logits: bool = True) -> None:
        self._has_logits = has_logits
        self._kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        vocab_size: int,
        num_items_in_batch: Any = None,
        ignore_index: int = IGNORED,
        shift_labels: torch.Tensor | None = None,
        **more: Any,
    ) -> torch.Tensor:
        """As ``ForCausalLMLoss``, which is called if this is more than a mean over the targets of a batch."""
        more.pop(BOUNDARIES, None)  # models pass on what is for their attention
        ordinary = num_items_in_batch is None and shift_labels is None and ignore_index == IGNORED and not more
        if not ordinary or logits.shape != (*labels.shape, vocab_size):
            own: torch.Tensor = ForCausalLMLoss(
                logits, labels, vocab_size, num_items_in_batch, ignore_index, shift_labels, **more
            )
            return own
        targets = pad(labels, (0, 1), value=ignore_index)[:, 1:].to(logits.device)
        losses = cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
        self.keep(labels, losses.view(targets.shape).sum(1))
        return losses.sum() / (targets != ignore_index).sum()

    def keep(self, labels: torch.Tensor, sums: torch.Tensor) -> None:
        """Keep the summed losses of the rows that have these labels."""
        self._kept.append((labels, sums))

    def of(self, logits: Any, labels: torch.Tensor, task: Task) -> list[float] | None:
        """Summed loss of each row of the last batch; None if its logits do not allow it."""
        kept, self._kept = self._kept, []
        if len(kept) == 1 and kept[0][0] is labels:  # several come from several heads
            return kept[0][1].tolist()
        return row_losses(logits, labels, task) if self._has_logits else None


@contextmanager
def recorded(model: Any, task: Task) -> Iterator[RowLosses]:
    """Within it, a causal model with transformers' loss records the losses of its rows."""
    known = getattr(getattr(model, "loss_function", None), "__self__", None)
    if isinstance(known, RowLosses):
        yield known  # losses without logits are kept as they are computed
        return
    rows = RowLosses()
    if not tasks.of(task).causal or getattr(model, "loss_function", None) is not ForCausalLMLoss:
        yield rows
        return
    before = model.__dict__.get("_loss_function")
    model.loss_function = rows.loss
    try:
        yield rows
    finally:
        model.__dict__.pop("_loss_function", None)
        if before is not None:
            model.loss_function = before


def row_losses(logits: Any, labels: torch.Tensor, task: Task) -> list[float] | None:
    """Summed negative log-likelihood of each row of a batch; None if the logits do not match the labels."""
    if not isinstance(logits, torch.Tensor) or logits.shape[:-1] != labels.shape:
        return None
    kind = tasks.of(task)
    if kind.has_labels:
        return cross_entropy(logits.float(), labels, reduction="none").tolist()
    if kind.masked:  # only a few tokens are targets
        chosen = labels != IGNORED
        losses = cross_entropy(logits[chosen].float(), labels[chosen], reduction="none")
        return torch.stack([part.sum() for part in torch.split(losses, chosen.sum(1).tolist())]).tolist()
    # Row by row: another FP32 copy of a whole batch's logits might not fit into the accelerator's memory.
    last, first = labels.shape[1] - kind.shift, kind.shift
    sums = [
        cross_entropy(logits[row, :last].float(), labels[row, first:], reduction="sum") for row in range(len(labels))
    ]
    return torch.stack(sums).tolist()
