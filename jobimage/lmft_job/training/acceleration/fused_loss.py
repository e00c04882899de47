"""The loss of a causal language model without the logits of a whole batch, in training and in evaluation.

Logits are rows x tokens x vocabulary: 8 rows of 1,024 tokens and 128k words take 4 GB in FP32, more than the weights
of a small model, and as much again for their gradient. Here the model's head passes its input on, and the model's loss
function multiplies it with the head's weight, some tokens at a time; the backward pass computes their logits again.
Products are in 16 bits under autocast, losses and sums in FP32, as with logits. (``torch``'s ``linear_cross_entropy``
computes them in the operands' type: on a CPU in BF16 a loss of 11.3 came out as 11.7.)

On a CPU time is short, not memory: there the logits are made once, of the positions that have a target alone. Of
conversations, where only answers are learned, these are a part. On a GPU their number would have to be waited for.

Generation sees logits as usual. Whether a head is only a product (no soft cap, no scale, no shift of its own) is
determined by trying.
"""

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from lmft_job.adapters.attach import trained
from lmft_job.evaluation.likelihood import RowLosses
from lmft_job.models.device import Arithmetic
from lmft_job.tasks.base import IGNORED

_TOLERANCE = 1e-5
_TOKENS = 32
_FEW_TOKENS = 8
"""On a CPU, where the trial of a large model takes seconds, and nothing is computed in parts."""
_LARGE_LOGIT = 30.0
_COUNT = 40
_MOST_LOGITS = 1 << 27
"""Logits that exist at a time: 512 MiB in FP32."""
_FEWEST_PARTS = 8


def token_losses(hidden: torch.Tensor, head: Any, targets: torch.Tensor, ignored: int = IGNORED) -> torch.Tensor:
    """Cross entropy of each token in FP32, 0 where it is ignored; (tokens,).

    Args:
        hidden: input of the head, (tokens, width).
        head: a linear layer.
        targets: (tokens,).
        ignored: target of tokens that are not predicted.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype

    def part(some: torch.Tensor, wanted: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        # The weight is converted in each part, so that the parts' gradients are added in the weight's own type.
        logits = F.linear(some.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
        return F.cross_entropy(logits.float(), wanted, ignore_index=ignored, reduction="none")

    size = max(1, min(_MOST_LOGITS // head.weight.shape[0], -(-len(hidden) // _FEWEST_PARTS)))
    with torch.autocast(kind, enabled=False):
        losses = [
            checkpoint(part, some, wanted, head.weight, head.bias, use_reentrant=False, preserve_rng_state=False)
            for some, wanted in zip(torch.split(hidden, size), torch.split(targets, size), strict=True)
        ]
    return torch.cat(losses)


class _WithoutLogits(RowLosses):
    """Replacements for the head's forward and the loss function of one model.

    Args:
        model: whose head is one linear layer.
        always: whether the head always passes its input on; otherwise only in training.
        of_targets: whether logits are made once, of the positions that have a target.
    """

    def __init__(self, model: Any, *, always: bool, of_targets: bool) -> None:
        super().__init__(has_logits=False)
        self.of_targets = of_targets
        self.head = model.get_output_embeddings()
        self.plain_head = self.head.forward
        self.plain_loss = model.loss_function
        self.handed_on = self.always = always

    def forward(self, head: Any, hidden: torch.Tensor) -> torch.Tensor:
        """The head: returns its input where no logits are wanted."""
        self.handed_on = self.always or (head.training and torch.is_grad_enabled())
        result: torch.Tensor = hidden if self.handed_on else self.plain_head(hidden)
        return result

    def loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        vocab_size: int | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        ignore_index: int = IGNORED,
        shift_labels: torch.Tensor | None = None,
        **options: Any,
    ) -> torch.Tensor:
        """Transformers' ``ForCausalLMLoss``, from the head's input (batch, length, width) if that was passed on."""
        if not self.handed_on:
            plain: torch.Tensor = self.plain_loss(
                logits=logits, labels=labels, vocab_size=vocab_size, num_items_in_batch=num_items_in_batch,
                ignore_index=ignore_index, shift_labels=shift_labels, **options,
            )  # fmt: skip
            return plain
        if shift_labels is None:
            shift_labels = F.pad(labels, (0, 1), value=ignore_index)[..., 1:]
        targets = shift_labels.reshape(-1).to(logits.device)
        hidden = logits.reshape(-1, logits.shape[-1])
        if self.of_targets:
            losses = self._target_losses(hidden, targets, ignore_index)
        else:
            losses = token_losses(hidden, self.head, targets, ignore_index)
        if self.always:
            self.keep(labels, losses.view(labels.shape).sum(1))
        return losses.sum() / ((targets != ignore_index).sum() if num_items_in_batch is None else num_items_in_batch)

    def _target_losses(self, hidden: torch.Tensor, targets: torch.Tensor, ignored: int) -> torch.Tensor:
        """As :func:`token_losses`, with the model's own head."""
        places = (targets != ignored).nonzero().squeeze(1)
        logits = self.plain_head(hidden.index_select(0, places))
        losses = F.cross_entropy(logits.float(), targets.index_select(0, places), reduction="none")
        return losses.new_zeros(len(targets)).index_copy(0, places, losses)


@contextmanager
def fused_loss(model: Any, *, of_targets: bool = False) -> Iterator[None]:
    """Within it, forward passes in training return a loss and, in place of logits, the head's input.

    Args:
        model: that :func:`admits_fused_loss` admits.
        of_targets: for a CPU: logits are made once, of the positions that have a target.
    """
    with _replaced(model, always=False, of_targets=of_targets):
        yield


@contextmanager
def fused_evaluation(model: Any, *, of_targets: bool = False) -> Iterator[RowLosses]:
    """Within it, all forward passes do so, and :func:`lmft_job.evaluation.likelihood.recorded` has their losses."""
    with _replaced(model, always=True, of_targets=of_targets) as replacement:
        yield replacement


@contextmanager
def _replaced(model: Any, *, always: bool, of_targets: bool) -> Iterator[RowLosses]:
    replacement = _WithoutLogits(model, always=always, of_targets=of_targets)
    head, had_head = replacement.head, replacement.head.__dict__.get("forward")
    had_loss = model.__dict__.get("_loss_function")
    head.forward = types.MethodType(replacement.forward, head)
    model.loss_function = replacement.loss
    try:
        yield replacement
    finally:
        del head.forward
        if had_head is not None:
            head.forward = had_head
        model.__dict__.pop("_loss_function", None)
        if had_loss is not None:
            model.loss_function = had_loss


def admits_fused_loss(model: Any, arithmetic: Arithmetic, *, of_targets: bool = False) -> bool:
    """Whether losses and gradients equal the plain ones to 1e-5, tried on random ids with dropout off, in FP32.

    The head's input is scaled until the logits are as large as a trained model's: a soft cap changes nothing near 0,
    where those of fresh weights are. Does not change the global random state, the weights or their gradients.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear) or not hasattr(model, "loss_function"):
        return False
    generator = torch.Generator().manual_seed(0)
    tokens = _FEW_TOKENS if of_targets else _TOKENS
    ids = torch.randint(head.out_features, (2, tokens), generator=generator).to(arithmetic.device)
    labels = ids.clone()
    labels[0, : tokens // 2] = IGNORED
    was_training, hook = model.training, None
    model.eval()
    try:
        with torch.random.fork_rng(devices=[ids.device] if ids.device.type == "cuda" else []):
            with torch.no_grad():
                scale = _LARGE_LOGIT / max(float(model(input_ids=ids, use_cache=False).logits.std()), 1e-6)
            hook = head.register_forward_pre_hook(lambda module, given: (given[0] * scale,))
            plain = _loss_and_gradients(model, ids, labels)
            with fused_loss(model, of_targets=of_targets):
                head.training = True  # the head in training mode, and no dropout elsewhere
                fused = _loss_and_gradients(model, ids, labels)
            with torch.no_grad():
                plain.append(model(input_ids=ids, labels=labels, use_cache=False).loss)
                with fused_evaluation(model, of_targets=of_targets):
                    fused.append(model(input_ids=ids, labels=labels, use_cache=False).loss)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # noqa: BLE001 - a model whose code does not support this keeps its own way
        return False
    finally:
        if hook is not None:
            hook.remove()
        model.train(was_training)
    return all(_near(one, other) for one, other in zip(plain, fused, strict=True))


def _near(one: torch.Tensor, other: torch.Tensor) -> bool:
    return float((one - other).norm()) <= _TOLERANCE * max(float(one.norm()), 1e-12)


def _loss_and_gradients(model: Any, ids: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
    """The loss, and its gradients for the head and for the input embeddings; the number of targets is passed.

    Where both are frozen, the gradients of what is trained, such as an adapter.
    """
    outer = [model.get_output_embeddings().weight]
    if model.get_input_embeddings().weight is not outer[0]:
        outer.append(model.get_input_embeddings().weight)
    weights = [weight for weight in outer if weight.requires_grad] or trained(model)
    count = torch.tensor(_COUNT, device=ids.device)
    loss = model(input_ids=ids, labels=labels, use_cache=False, num_items_in_batch=count).loss
    return [loss.detach(), *torch.autograd.grad(loss, weights)]
