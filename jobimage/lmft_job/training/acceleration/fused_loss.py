"""The loss of a causal language model without the logits of a whole batch.

Logits are rows x tokens x vocabulary: 8 rows of 1,024 tokens and 128k words take 4 GB in FP32, more than the weights
of a small model, and as much again for their gradient. ``torch.nn.functional.linear_cross_entropy`` multiplies with
the head's weight and sums the loss in chunks. In training the model's head passes its input on, and the model's loss
function multiplies; outside of training nothing changes, so that generation and evaluation see logits as usual.

Whether a head is only a product (no soft cap, no scale, no shift of its own) is determined by trying.
"""

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F

from lmft_job.adapters.attach import trained
from lmft_job.models.device import Arithmetic
from lmft_job.tasks.base import IGNORED

_TOLERANCE = 1e-5
_TOKENS = 32
_LARGE_LOGIT = 30.0
_COUNT = 40


def available() -> bool:
    """Whether this torch version has it (2.13 and later)."""
    return hasattr(F, "linear_cross_entropy") and hasattr(torch.nn, "LinearCrossEntropyOptions")


class _Fused:
    """Replacements for the head's forward and the loss function of one model."""

    def __init__(self, model: Any) -> None:
        self.head = model.get_output_embeddings()
        self.plain_head = self.head.forward
        self.plain_loss = model.loss_function
        self.handed_on = False
        # Without options torch takes a path that computes all logits.
        self.options = torch.nn.LinearCrossEntropyOptions()

    def forward(self, head: Any, hidden: torch.Tensor) -> torch.Tensor:
        """The head in training: returns its input."""
        self.handed_on = head.training and torch.is_grad_enabled()
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
        hidden, weight, bias = logits, self.head.weight, self.head.bias
        targets = shift_labels.reshape(-1).to(hidden.device)
        kind = hidden.device.type
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
            hidden, weight = hidden.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        with torch.autocast(kind, enabled=False):
            summed: torch.Tensor = F.linear_cross_entropy(
                hidden.reshape(-1, hidden.shape[-1]), weight, targets, linear_bias=bias,
                reduction="sum", ignore_index=ignore_index, options=self.options,
            )  # fmt: skip
        if num_items_in_batch is None:
            return summed / (targets != ignore_index).sum()
        return summed / num_items_in_batch


@contextmanager
def fused_loss(model: Any) -> Iterator[None]:
    """Within it, forward passes in training return a loss and, in place of logits, the head's input."""
    fused = _Fused(model)
    had_loss = model.__dict__.get("_loss_function")
    fused.head.forward = types.MethodType(fused.forward, fused.head)
    model.loss_function = fused.loss
    try:
        yield
    finally:
        del fused.head.forward
        if had_loss is None:
            model.__dict__.pop("_loss_function", None)
        else:
            model.loss_function = had_loss


def admits_fused_loss(model: Any, arithmetic: Arithmetic) -> bool:
    """Whether loss and gradients equal the plain ones to 1e-5, tried on random ids with dropout off, in FP32.

    The head's input is scaled until the logits are as large as a trained model's: a soft cap changes nothing near 0,
    where those of fresh weights are. Does not change the global random state, the weights or their gradients.
    """
    head = model.get_output_embeddings()
    if not available() or not isinstance(head, torch.nn.Linear) or not hasattr(model, "loss_function"):
        return False
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(head.out_features, (2, _TOKENS), generator=generator).to(arithmetic.device)
    labels = ids.clone()
    labels[0, : _TOKENS // 2] = IGNORED
    was_training, hook = model.training, None
    model.eval()
    try:
        with torch.random.fork_rng(devices=[ids.device] if ids.device.type == "cuda" else []):
            with torch.no_grad():
                scale = _LARGE_LOGIT / max(float(model(input_ids=ids, use_cache=False).logits.std()), 1e-6)
            hook = head.register_forward_pre_hook(lambda module, given: (given[0] * scale,))
            plain = _loss_and_gradients(model, ids, labels)
            with fused_loss(model):
                head.training = True  # the head in training mode, and no dropout elsewhere
                fused = _loss_and_gradients(model, ids, labels)
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
