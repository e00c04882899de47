"""Attention within each text of rows that several texts share, without masks.

A mask over such rows has as many values as a row has tokens squared, takes attention to kernels that compute what it
hides, and is made from positions that transformers reads from the device, for which the CPU waits. Here the collator
says where the texts begin (:mod:`lmft_job.data.isolated.boundaries`), transformers passes that on to every layer as it
does for FlashAttention, and ``torch.nn.attention.varlen`` attends within each text. The rows lie end to end for it. The
longest text is given as the length of a row, and the number of texts is rounded up, so that shapes rarely change.

The kernel is FlashAttention's, which takes 16 bits on a GPU and knows no dropout. cuDNN's, which torch would prefer on
some cards, is left out until both were measured.

Whether a model may use it is tried on the model itself. Forward passes without boundaries, such as a generation's, are
computed as :mod:`lmft_job.training.acceleration.packed_attention` does.
"""

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from lmft_job.data.isolated.boundaries import BOUNDARIES, PadBounded, boundaries_of
from lmft_job.data.isolated.collate import PadShared
from lmft_job.data.rows import Item
from lmft_job.models.device import Arithmetic
from lmft_job.models.next_token import NOTICEABLE, embedding_rows
from lmft_job.training.acceleration.packed_attention import TRIED, Windowless, attend_without_mask, no_mask

log = logging.getLogger(__name__)
NAME = "varlen"
_TRIAL = "varlen-trial"
_REPLACED = "sdpa"
_DTYPES = (torch.bfloat16, torch.float16)
_SEVERAL = 256
"""Most tokens of a row of several texts that is tried; one of a single text has up to :data:`TRIED`."""
_ROUNDED_LOGITS, _ROUNDED_ATTENTION = 5e-2, 2e-2
"""Relative differences that 16 bits explain. Chosen: a text that sees another one differs by more."""
_UNKNOWN = ("softcap", "s_aux", "position_bias")
"""What some models have their attention do besides, and the kernel does not."""

Kernel = Callable[..., Any]


def varlen_kernel() -> Kernel:
    """``torch.nn.attention.varlen.varlen_attn``; its module imports torch's compiler, so it is imported when used."""
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn


def attend_by_text(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, 0),
    enable_gqa: bool = False,
) -> torch.Tensor:
    """The same as ``varlen_attn`` with causal attention, text by text, in any precision; for trials.

    Args:
        query: (tokens, heads, size).
        key: (tokens, key-value heads, size), as ``value``.
        value: see ``key``.
        cu_seq_q: boundaries of the texts, int32 of (texts + 1,).
        cu_seq_k: the same.
        max_q: not read; nor is ``max_k``.
        max_k: not read.
        scale: of the scores.
        window_size: causal attention only.
        enable_gqa: whether query heads share key-value heads.
    """
    if tuple(window_size) != (-1, 0):
        raise ValueError(f"causal attention only, not a window of {window_size}")
    sizes = cu_seq_q.diff().tolist()
    parts = (torch.split(states.transpose(0, 1)[None], sizes, 2) for states in (query, key, value))
    texts = [
        F.scaled_dot_product_attention(mine, keys, values, is_causal=True, scale=scale, enable_gqa=enable_gqa)
        for mine, keys, values in zip(*parts, strict=True)
        if mine.shape[2]
    ]
    return torch.cat(texts, 2)[0].transpose(0, 1)


def _attend(
    kernel: Kernel,
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """In transformers' form: query (batch, heads, length, size), key and value with their own number of heads.

    Raises:
        ValueError: the model asks for what the kernel does not compute.
    """
    boundaries = options.pop(BOUNDARIES, None)
    if boundaries is None:
        return attend_without_mask(module, query, key, value, None, **options)
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    asked = [name for name in _UNKNOWN if options.get(name) is not None]
    asked += [f"dropout of {options['dropout']}"] if options.get("dropout") else []
    if asked or not causal or query.shape[2] != key.shape[2]:
        raise ValueError(f"this attention is causal, and knows no {', '.join(asked) or 'other'}")
    batch, heads, length, _ = query.shape
    kind = query.device.type
    # Autocast knows torch's own attention and converts its operands; it does not know the kernel.
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype
    flat = (states.transpose(1, 2).flatten(0, 1).to(dtype) for states in (query, key, value))
    result = kernel(
        *flat, boundaries, boundaries, length, length,
        scale=options.get("scaling"), window_size=(-1, 0), enable_gqa=heads != key.shape[1],
    )  # fmt: skip
    return result.view(batch, length, heads, -1), None


def _flash(kernel: Kernel, *operands: Any, **options: Any) -> Any:
    """The kernel, by FlashAttention."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        return kernel(*operands, **options)


@functools.cache
def _attention(kernel: Kernel) -> Callable[..., tuple[torch.Tensor, None]]:
    """One object for a kernel, by which compiled layers know it again."""
    return functools.partial(_attend, functools.partial(_flash, kernel))


@contextmanager
def _using(model: Any, name: str) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def varlen_attention(model: Any) -> Iterator[None]:
    """Within it, the model's forward passes take batches of :class:`lmft_job.data.isolated.boundaries.PadBounded`."""
    AttentionInterface.register(NAME, _attention(varlen_kernel()))
    AttentionMaskInterface.register(NAME, no_mask)
    with _using(model, NAME):
        yield


@dataclass(frozen=True)
class _Heads:
    """What a kernel must take: query heads, key-value heads, sizes of key and value, factor of the scores."""

    query: int
    shared: int
    size: int
    value_size: int
    scale: float | None


class _Trial(Windowless):
    """An attention in FP32 that keeps what the kernel will be given."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.heads: set[_Heads] = set()

    def attend(self, module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
        self.refuse(options.get("sliding_window"))
        self.heads.add(_Heads(query.shape[1], key.shape[1], query.shape[3], value.shape[3], options.get("scaling")))
        return _attend(attend_by_text, module, query, key, value, mask, **options)


def admits_varlen_attention(model: Any, width: int, arithmetic: Arithmetic) -> bool:
    """Whether a model computes each text of a row as if it were alone, and as with masks, with this attention.

    Tried on random ids, with dropout off: in FP32 with a reference in the kernel's place, since the rounding of 16 bits
    would hide a token that is seen too many; then with the kernel. The kernel by itself is compared with the reference
    too, gradients included. Refused are models with windows shorter than a row, with dropout in their attention, with
    an attention of their own, and such as pass no keywords on to it.

    Does not use the global random state, changes no weight and keeps no gradient.

    Args:
        model: on its device, whole or divided among ranks.
        width: tokens of the longest row.
        arithmetic: device and precision.
    """
    if getattr(model.config, "_attn_implementation", None) != _REPLACED or arithmetic.autocast not in _DTYPES:
        return False
    was_training = model.training
    model.eval()
    try:
        with torch.random.fork_rng(devices=[arithmetic.device] if arithmetic.device.type == "cuda" else []):
            _try(model, width, arithmetic)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a model whose code does not support this keeps its own way
        log.info("no attention within texts, masks instead: %s", error)
        return False
    finally:
        model.train(was_training)
    return True


@torch.no_grad()
def _try(model: Any, width: int, arithmetic: Arithmetic) -> None:
    """Raises ValueError, or what the model's code or the kernel raises, if it is not to be used."""
    device, draw, trial = arithmetic.device, torch.Generator().manual_seed(0), _Trial(width)
    some = min(width, _SEVERAL)
    several, shorter, long = (
        _item(lengths, embedding_rows(model), draw)
        for lengths in (_lengths(some), _lengths(max(1, some // 2)), [min(width, TRIED)])
    )
    AttentionInterface.register(_TRIAL, trial.attend)
    AttentionMaskInterface.register(_TRIAL, trial.mask)
    for items in ([long], [several, shorter]):
        alone, masked = _alone(model, items, device), _masked(model, items, device)
        apart = _together(model, items, device, _TRIAL)
        for name, found in (("masks", masked), ("this attention", apart)):
            if not bool((found - alone).abs().max() <= NOTICEABLE * alone.abs().max()):
                raise ValueError(f"with {name} the logits of texts in a row are not those of the texts alone")
    if not trial.heads:
        raise ValueError("the model computes its attention itself")
    model.train()
    _together(model, [several], device, _TRIAL)  # raises if it asks for dropout
    model.eval()
    with arithmetic.context(), varlen_attention(model):
        rounded = _together(model, [several, shorter], device, NAME).float()
    near = (rounded - alone).norm(dim=-1) <= _ROUNDED_LOGITS * alone.norm(dim=-1)
    # Rounding sends some tokens of a mixture of experts to another expert.
    if near.sum() < len(near) / 2:
        raise ValueError("with the kernel the logits of texts in a row are not those of the texts alone")
    for heads in trial.heads:
        _require_agreement(heads, some, arithmetic, draw)


def _lengths(total: int) -> list[int]:
    """Lengths of texts that fill so many tokens, one of them a single token where there is room."""
    cuts = np.unique([0, total // 3, total // 3 + (total > 3), total * 3 // 4, total])
    return [int(length) for length in np.diff(cuts)]


def _item(lengths: list[int], vocabulary: int, draw: torch.Generator) -> Item:
    ids = torch.randint(vocabulary, (sum(lengths),), generator=draw).numpy()
    return {"input_ids": ids, "labels": ids, "lengths": np.array(lengths)}


def _alone(model: Any, items: list[Item], device: torch.device) -> torch.Tensor:
    """Logits of every text by itself, end to end: (tokens, vocabulary)."""
    texts = [text for item in items for text in np.split(item["input_ids"], item["lengths"].cumsum()[:-1])]
    rows = [torch.from_numpy(text)[None].to(device) for text in texts]
    return torch.cat([model(input_ids=row, use_cache=False).logits[0] for row in rows])


def _together(model: Any, items: list[Item], device: torch.device, name: str) -> torch.Tensor:
    """The same of rows that they share, by the attention of this name."""
    batch = {key: value.to(device) for key, value in PadBounded(PadShared(0))(items).items() if key != "labels"}
    with _using(model, name):
        logits: torch.Tensor = model(**batch, use_cache=False).logits
    return logits[batch["attention_mask"] == 1]


def _masked(model: Any, items: list[Item], device: torch.device) -> torch.Tensor:
    """The same by the model's own attention, with the masks that transformers makes."""
    batch = {key: value.to(device) for key, value in PadShared(0).stacked(items).items()}
    real = batch["attention_mask"] == 1
    logits: torch.Tensor = model(
        input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False
    ).logits
    return logits[real]


def _require_agreement(heads: _Heads, width: int, arithmetic: Arithmetic, draw: torch.Generator) -> None:
    """Raises ValueError if the kernel's results or gradients are not the reference's, for heads of this kind."""
    lengths = [np.array(_lengths(width)), np.array([width])]
    boundaries = boundaries_of(lengths, 2, width).to(arithmetic.device)
    shapes = ((heads.query, heads.size), (heads.shared, heads.size), (heads.shared, heads.value_size))
    dtype = arithmetic.autocast or torch.float32
    operands = [
        torch.randn((2 * width, *shape), generator=draw).to(arithmetic.device, dtype).requires_grad_()
        for shape in shapes
    ]
    weights = torch.randn((2 * width, heads.query, heads.value_size), generator=draw).to(arithmetic.device, dtype)

    @torch.enable_grad()
    def results(kernel: Kernel, operands: list[torch.Tensor]) -> list[torch.Tensor]:
        out = kernel(
            *operands, boundaries, boundaries, width, width,
            scale=heads.scale, window_size=(-1, 0), enable_gqa=heads.query != heads.shared,
        )  # fmt: skip
        return [out.detach(), *torch.autograd.grad(out, operands, weights.to(out.dtype))]

    found = results(functools.partial(_flash, varlen_kernel()), operands)
    wanted = results(attend_by_text, [one.detach().float().requires_grad_() for one in operands])
    for mine, theirs in zip(found, wanted, strict=True):
        if not bool((mine.float() - theirs).norm() <= _ROUNDED_ATTENTION * theirs.norm()):
            raise ValueError(f"for {heads} the kernel computes something else than the formula")
