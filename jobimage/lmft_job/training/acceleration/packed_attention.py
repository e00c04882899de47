"""Attention over packed blocks without a mask.

A block is full: nothing in it is padding, so no mask is needed, and a causal model hides later tokens by the kernel's
``is_causal``. Transformers does not know that. Without a mask, it checks the positions for documents that begin
within a row; with one, it checks whether it hides anything. Either way it reads a value from the device, and the CPU
waits for everything queued before. So the blocks come with a mask of ones that is never read: transformers'
registries select by name how masks are made and how attention is computed, and under the name used here no mask is
made.

Only for forward passes of whole blocks. Generation, with its cache and its padding, uses the model's own attention.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface

from lmft_job.models.device import Arithmetic
from lmft_job.models.next_token import embedding_rows

NAME = "packed"
_REPLACED = "sdpa"
_TOLERANCE = 1e-5


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' own call of ``scaled_dot_product_attention``, without a mask.

    Shapes: query (batch, heads, length, size), key and value with their own number of heads.
    """
    if options.get("is_causal") is None:
        options["is_causal"] = getattr(module, "is_causal", True)
    result: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, None, **options)
    return result


def _no_mask(*args: Any, **options: Any) -> None:
    """The mask of a full block: none."""


def _register() -> None:
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _no_mask)


@contextmanager
def packed_attention(model: Any) -> Iterator[None]:
    """Within it, the model's forward passes take full blocks, with an ``attention_mask`` of ones that is not read."""
    before = model.config._attn_implementation
    _register()
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def admits_packed_attention(model: Any, block_size: int, arithmetic: Arithmetic) -> bool:
    """Whether a model gives the same logits with :func:`packed_attention`, tried on one random block of full length.

    A model with sliding windows does not, nor one with its own computation of attention. In FP32, since the
    rounding of BF16 would hide a window. Does not use the global random state and keeps no gradient.
    """
    if getattr(model.config, "_attn_implementation", None) != _REPLACED:
        return False
    vocabulary = embedding_rows(model)
    ids = torch.randint(vocabulary, (1, block_size), generator=torch.Generator().manual_seed(0)).to(arithmetic.device)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            plain = model(input_ids=ids, use_cache=False).logits
            with packed_attention(model):
                packed = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
            return bool((plain - packed).norm() <= _TOLERANCE * plain.norm())
    except torch.OutOfMemoryError:
        raise
    except Exception:  # noqa: BLE001 - a model whose code does not support this keeps its own way
        return False
    finally:
        model.train(was_training)
