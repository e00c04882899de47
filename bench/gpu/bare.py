"""A bare training loop: a decoder written out, compiled as a whole, nothing between the steps.

What a person gets who writes the loop by hand, as nanoGPT and litgpt do: pre-norm blocks, one projection for queries,
keys and values, ``scaled_dot_product_attention``, fused AdamW, BF16 autocast, loss over the whole logits. The same
number of parameters and products as the transformers model beside it.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """One layer; GPT-2's (LayerNorm, GELU, biases) or Llama's (RMSNorm, gated SiLU, rotary positions)."""

    def __init__(self, shape: Any) -> None:
        super().__init__()
        self.shape, self.size = shape, shape.width // shape.heads
        gpt = shape.family == "gpt2"
        norm = nn.LayerNorm if gpt else nn.RMSNorm
        self.before, self.after = norm(shape.width), norm(shape.width)
        self.mix = nn.Linear(shape.width, (shape.heads + 2 * shape.kv_heads) * self.size, bias=gpt)
        self.out = nn.Linear(shape.width, shape.width, bias=gpt)
        self.up = nn.Linear(shape.width, shape.inner * (1 if gpt else 2), bias=gpt)
        self.down = nn.Linear(shape.inner, shape.width, bias=gpt)

    def forward(self, x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor] | None) -> torch.Tensor:
        """(rows, length, width) to the same."""
        shape, (rows, length, _) = self.shape, x.shape
        widths = [heads * self.size for heads in (shape.heads, shape.kv_heads, shape.kv_heads)]
        parts = self.mix(self.before(x)).split(widths, -1)
        query, key, value = (part.view(rows, length, -1, self.size).transpose(1, 2) for part in parts)
        if turn is not None:
            query, key = _turned(query, *turn), _turned(key, *turn)
        grouped = shape.heads != shape.kv_heads
        mixed = F.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=grouped, dropout_p=shape.dropout if self.training else 0.0
        )
        x = x + F.dropout(self.out(mixed.transpose(1, 2).reshape(rows, length, -1)), shape.dropout, self.training)
        inner = self.up(self.after(x))
        if shape.family == "gpt2":
            inner = F.gelu(inner, approximate="tanh")
        else:
            gate, inner = inner.chunk(2, -1)
            inner = F.silu(gate) * inner
        return x + F.dropout(self.down(inner), shape.dropout, self.training)


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


class Decoder(nn.Module):
    """Ids to the mean loss of predicting the next one."""

    def __init__(self, shape: Any) -> None:
        super().__init__()
        self.shape, gpt = shape, shape.family == "gpt2"
        padded = math.ceil(shape.vocabulary / 64) * 64
        self.words = nn.Embedding(padded, shape.width)
        self.places = nn.Embedding(shape.block, shape.width) if gpt else None
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width) if gpt else nn.RMSNorm(shape.width)
        self.head = nn.Linear(shape.width, padded, bias=False)
        if gpt:
            self.head.weight = self.words.weight
        size = shape.width // shape.heads
        angle = torch.outer(torch.arange(shape.block), 1e4 ** (-torch.arange(0, size, 2) / size))
        self.register_buffer("cos", angle.cos().to(torch.bfloat16), persistent=False)
        self.register_buffer("sin", angle.sin().to(torch.bfloat16), persistent=False)
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=0.02)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids, int64 (rows, length)."""
        x = self.words(ids)
        if self.places is not None:
            x = F.dropout(x + self.places.weight[None, : ids.shape[1]], self.shape.dropout, self.training)
        turn = None if self.places is not None else (self.cos, self.sin)
        for layer in self.layers:
            x = layer(x, turn)
        logits = self.head(self.norm(x))[:, :-1]
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]).float(), ids[:, 1:].reshape(-1))


def train_bare(shape: Any, rows: Any, steps: int, tick: Any, device: torch.device) -> list[torch.Tensor]:
    """Train; ``rows(step)`` gives ids in host memory, ``tick`` is called after each step. The losses, on the device."""
    torch.manual_seed(1)
    torch.set_float32_matmul_precision("high")
    model = Decoder(shape).to(device).train()
    step_of = torch.compile(model) if device.type == "cuda" else model
    weights = list(model.parameters())
    groups = [
        {"params": [weight for weight in weights if weight.dim() > 1], "weight_decay": 0.01},
        {"params": [weight for weight in weights if weight.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=shape.learning_rate, fused=device.type == "cuda")
    losses = []
    for step in range(steps):
        ids = rows(step).to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = step_of(ids)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = shape.learning_rate * (1 - step / steps)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        tick()
    return losses
