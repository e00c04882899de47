"""Logits whose rows have a width that suits matrix units.

The vocabulary of GPT-2 has 50,257 tokens, and BF16 rows of an odd length cannot be read in the pieces that a GPU's
matrix units use: three products with the head then take more than half of a step's time (H100: 30 of 76 ms at
16 x 1,024 tokens and 124M parameters). Under autocast the head's weight is copied to 16 bits anyway; here the copy is
padded with rows of zeros to a multiple of 64, and their outputs are removed. Weights, checkpoints and logits do not
change.
"""

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F

_MULTIPLE = 64
_ALIGNED = 8
"""Elements of 16 bits in the 16 bytes that a GPU reads at a time."""


def admits_aligned_head(model: Any) -> bool:
    """Whether a model's head is one product whose width is not a multiple of what matrix units read."""
    head = model.get_output_embeddings()
    return isinstance(head, torch.nn.Linear) and head.out_features % _ALIGNED != 0


def _forward(head: torch.nn.Linear, hidden: torch.Tensor) -> torch.Tensor:
    """(…, width) to (…, vocabulary); under autocast to 16 bits through a padded copy of the weight."""
    kind = hidden.device.type
    if not torch.is_autocast_enabled(kind):
        return F.linear(hidden, head.weight, head.bias)
    dtype, more = torch.get_autocast_dtype(kind), -head.out_features % _MULTIPLE
    weight = F.pad(head.weight.to(dtype), (0, 0, 0, more))
    bias = None if head.bias is None else F.pad(head.bias.to(dtype), (0, more))
    return F.linear(hidden.to(dtype), weight, bias)[..., : head.out_features]


@contextmanager
def aligned_head(model: Any) -> Iterator[None]:
    """Within it, the model's head computes with an aligned width."""
    head = model.get_output_embeddings()
    head.forward = types.MethodType(_forward, head)
    try:
        yield
    finally:
        head.__dict__.pop("forward", None)
