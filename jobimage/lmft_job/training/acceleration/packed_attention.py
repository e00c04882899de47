"""Attention without looking at masks: packed blocks, and rows with padding.

A block is full: nothing in it is padding, so no mask is needed, and a causal model hides later tokens by the kernel's
``is_causal``. Transformers does not know that. Without a mask, it checks the positions for documents that begin
within a row; with one, it checks whether it hides anything. Either way it reads a value from the device, and the CPU
waits for everything queued before. So the blocks come with a mask of ones that is never read: transformers'
registries select by name how masks are made and how attention is computed, and under the name used here no mask is
made.

Rows with padding come with a mask of it. Where a model is causal and the padding comes last, no token sees it anyway,
so that these rows are computed as blocks are. Other models need the mask, and get it under another name: it is made
without asking first whether it hides anything.

Only for forward passes of whole rows. Generation, with its cache and its padding, uses the model's own attention.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from lmft_job.models.config import without_cache
from lmft_job.models.device import Arithmetic
from lmft_job.models.next_token import embedding_rows, trying

NAME = "packed"
PADDED = "padded"
TRIED = 2048
"""Most tokens of a row that is tried: in FP32, heads that share keys take memory for the square of them."""
_TRIAL = "packed-trial"
_REPLACED = "sdpa"
_TOLERANCE = 1e-5
_ROUNDED = 2e-2
"""Relative difference that weights in 16 bits explain between passes of other shapes. Chosen, not measured."""


def attend_without_mask(
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


def no_mask(*args: Any, **options: Any) -> None:
    """The mask that this attention needs: none."""


def _whole_mask(attention_mask: torch.Tensor | None = None, **options: Any) -> torch.Tensor | None:
    """Transformers' own mask (batch, 1, length, length), whether or not anything is hidden."""
    if attention_mask is not None:
        options |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return sdpa_mask(attention_mask=attention_mask, **options)


def _register() -> None:
    AttentionInterface.register(NAME, attend_without_mask)
    AttentionMaskInterface.register(NAME, no_mask)
    AttentionInterface.register(PADDED, sdpa_attention_forward)
    AttentionMaskInterface.register(PADDED, _whole_mask)


@contextmanager
def packed_attention(model: Any, name: str = NAME) -> Iterator[None]:
    """Within it, the model's forward passes take full blocks, with an ``attention_mask`` of ones that is not read.

    With the name :data:`PADDED`, rows whose ``attention_mask`` hides their padding.
    """
    before = model.config._attn_implementation
    _register()
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


class Windowless:
    """An attention and its masks, for a trial: both refuse windows in rows of ``width`` tokens."""

    def __init__(self, width: int) -> None:
        self.width = width

    def attend(self, module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
        """As :func:`attend_without_mask`; raises ValueError if a token would not see all before it."""
        self.refuse(options.get("sliding_window"))
        return attend_without_mask(module, query, key, value, mask, **options)

    def mask(self, *args: Any, local_size: int | None = None, **options: Any) -> None:
        """No mask; raises ValueError for the mask of a window."""
        self.refuse(local_size)

    def refuse(self, window: int | None) -> None:
        """Raises ValueError if rows are longer than this window."""
        if window is not None and window < self.width:
            raise ValueError(f"a window of {window} tokens in rows of {self.width}")


def admits_packed_attention(model: Any, block_size: int, arithmetic: Arithmetic) -> bool:
    """Whether a model gives the same logits with :func:`packed_attention`, tried on one random block.

    A model with sliding windows does not, nor one with its own computation of attention. In FP32, since the
    rounding of BF16 would hide a window. Blocks of more than :data:`TRIED` tokens are tried with as many, and windows
    shorter than a block are refused by their size. Does not use the global random state and keeps no gradient.
    """
    if getattr(model.config, "_attn_implementation", None) != _REPLACED:
        return False
    shape, trial = (1, min(block_size, TRIED)), Windowless(block_size)
    ids = torch.randint(embedding_rows(model), shape, generator=torch.Generator().manual_seed(0)).to(arithmetic.device)
    AttentionInterface.register(_TRIAL, trial.attend)
    AttentionMaskInterface.register(_TRIAL, trial.mask)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            plain = model(input_ids=ids, use_cache=False).logits
            with packed_attention(model, _TRIAL):
                packed = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
            return bool((plain - packed).norm() <= _TOLERANCE * plain.norm())
    except torch.OutOfMemoryError:
        raise
    except Exception:  # noqa: BLE001 - a model whose code does not support this keeps its own way
        return False
    finally:
        model.train(was_training)


def padded_attention(
    model: Any, narrow: dict[str, torch.Tensor], wide: dict[str, torch.Tensor], longest: int, arithmetic: Arithmetic
) -> str | None:
    """The attention with which a model computes padded rows as it does with its own, however much they are padded.

    Tried on two batches of the same rows. What is compared to the last digit has the same shape, so that this can be
    told in BF16 too: a model whose results depend on what stands in the padding needs its mask; a mask that is always
    made changes nothing. That more padding changes nothing is told within rounding.

    Args:
        model: on its device.
        narrow: rows of different lengths, padded to the longest of them, on the CPU.
        wide: the same rows, with padding in each.
        longest: the longest length of a batch.
        arithmetic: device; in the precision of the weights.

    Returns:
        :data:`NAME`, :data:`PADDED`, or None where the model keeps its own.
    """
    if getattr(model.config, "_attn_implementation", None) != _REPLACED:
        return None
    exact = all(weight.dtype == torch.float32 for weight in model.parameters())
    loose, last = _TOLERANCE if exact else _ROUNDED, bool(wide["attention_mask"][:, 0].all())

    def logits(batch: dict[str, torch.Tensor], name: str = _REPLACED) -> torch.Tensor:
        return _of_tokens(model, batch, name, arithmetic.device)[0]

    def hidden(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return _of_tokens(model, batch, NAME, arithmetic.device)[1]

    try:
        with trying(model, Arithmetic(arithmetic.device) if exact else arithmetic), without_cache(model):
            plain = logits(wide)
            if not _near(plain, logits(narrow), loose):
                return None
            if last and admits_packed_attention(model, longest, arithmetic) and _near(plain, logits(wide, NAME), loose):
                ids, padding = wide["input_ids"], wide["attention_mask"] == 0
                other = torch.where(padding, (ids + 1) % embedding_rows(model), ids)
                if _near(hidden(wide), hidden(wide | {"input_ids": other}), _TOLERANCE):
                    return NAME
            return PADDED if _near(plain, logits(wide, PADDED), _TOLERANCE) else None
    except torch.OutOfMemoryError:
        raise
    except Exception:  # noqa: BLE001 - a model whose code does not support this keeps its own way
        return None


def _near(one: torch.Tensor, other: torch.Tensor, tolerance: float) -> bool:
    return bool((one - other).norm() <= tolerance * one.norm())


def _of_tokens(
    model: Any, batch: dict[str, torch.Tensor], name: str, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and what the head gets, with an attention; only those of tokens that are not padding, in FP32."""
    given = {key: batch[key].to(device) for key in ("input_ids", "attention_mask")}
    seen: list[torch.Tensor] = []
    hook = model.base_model.register_forward_hook(lambda module, taken, outputs: seen.append(outputs[0]))
    try:
        with packed_attention(model, name):
            logits = model(**given).logits
    finally:
        hook.remove()
    real = given["attention_mask"] == 1
    logits, hidden = ((one[real] if one.ndim > 2 else one).float() for one in (logits, seen[0]))
    return logits, hidden
