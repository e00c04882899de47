"""A stand-in on a CPU for the kernel of ``torch.nn.attention.varlen``: the formulas, text by text, in any precision."""

import itertools
from typing import Any

import torch


def _texts(boundaries: torch.Tensor, *states: torch.Tensor) -> Any:
    """Of each text that has tokens: its states as (heads, tokens, size)."""
    bounds = boundaries.tolist()
    for start, end in itertools.pairwise(bounds):
        if end > start:
            yield [some[start:end].transpose(0, 1) for some in states]


def _weights(query: torch.Tensor, key: torch.Tensor, scale: float) -> torch.Tensor:
    """Attention of each token to itself and those before it: (heads, tokens, tokens)."""
    scores = query @ key.transpose(1, 2) * scale
    return scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)


def _scale(query: torch.Tensor, scale: float | None) -> float:
    return float(query.shape[-1]) ** -0.5 if scale is None else scale


@torch.library.custom_op("lmft_tests::varlen", mutates_args=())
def _forward(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, boundaries: torch.Tensor, scale: float | None
) -> torch.Tensor:
    group, factor = query.shape[1] // key.shape[1], _scale(query, scale)
    found = [
        _weights(mine, keys.repeat_interleave(group, 0), factor) @ values.repeat_interleave(group, 0)
        for mine, keys, values in _texts(boundaries, query, key, value)
    ]
    return torch.cat(found, 1).transpose(0, 1).contiguous()


@_forward.register_fake
def _(query: Any, key: Any, value: Any, boundaries: Any, scale: Any) -> torch.Tensor:
    return query.new_empty(*query.shape[:-1], value.shape[-1])


@torch.library.custom_op("lmft_tests::varlen_backward", mutates_args=())
def _backward(
    gradient: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, boundaries: torch.Tensor,
    scale: float | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    group, factor = query.shape[1] // key.shape[1], _scale(query, scale)
    found: list[list[torch.Tensor]] = [[], [], []]
    for given, mine, few_keys, few_values in _texts(boundaries, gradient, query, key, value):
        keys, values = few_keys.repeat_interleave(group, 0), few_values.repeat_interleave(group, 0)
        weights = _weights(mine, keys, factor)
        of_weights = given @ values.transpose(1, 2)
        of_scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdim=True)) * factor
        parts = (of_scores @ keys, of_scores.transpose(1, 2) @ mine, weights.transpose(1, 2) @ given)
        for number, part in enumerate(parts):
            shared = part if number == 0 else part.unflatten(0, (-1, group)).sum(1)
            found[number].append(shared.transpose(0, 1))
    one, two, three = (torch.cat(parts).contiguous() for parts in found)
    return one, two, three


@_backward.register_fake
def _(gradient: Any, query: Any, key: Any, value: Any, boundaries: Any, scale: Any) -> Any:
    return tuple(states.new_empty(states.shape) for states in (query, key, value))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.scale = inputs[4]


_forward.register_autograd(
    lambda ctx, gradient: (*_backward(gradient, *ctx.saved_tensors, ctx.scale), None, None),
    setup_context=_setup,
)


def varlen_on_cpu(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> torch.Tensor:
    """As ``varlen_attn``: one operation that a compiler does not look into, which takes what the kernel takes.

    Raises:
        ValueError: something that the kernel would refuse, or that is another computation.
    """
    if cu_seq_q.dtype != torch.int32 or cu_seq_q is not cu_seq_k or tuple(window_size) != (-1, 0) or max_q != max_k:
        raise ValueError(f"boundaries of {cu_seq_q.dtype}, a window of {window_size}, {max_q} and {max_k} tokens")
    if {states.dim() for states in (query, key, value)} != {3} or (query.shape[1] != key.shape[1]) != enable_gqa:
        raise ValueError(f"shapes {query.shape}, {key.shape}, {value.shape} with enable_gqa={enable_gqa}")
    return _forward(query, key, value, cu_seq_q, scale)
