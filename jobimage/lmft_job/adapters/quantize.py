"""The frozen base in 4 bits (NF4) by bitsandbytes, on a GPU or a CPU: QLoRA, Dettmers et al. 2023.

Each linear layer that an adapter may change is stored in blocks of 64 numbers, as indices into the 16 values of NF4
with a scale for each block, which is itself stored in 8 bits. Embeddings, norms and the output layer keep their type,
and so do layers whose number of inputs is not a multiple of a block: on a CPU, bitsandbytes 0.50.2 reads their weights
wrongly (a relative error of 0.3 instead of 0.09), without an error.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from lmft_api.text.wording import first_line
from lmft_job.errors import InvalidError

_FIELD = "spec.training.quantization"
_BLOCK = 64
_MOST_ERROR = 0.15
"""Relative error of weights in NF4: 0.092 for a normal distribution."""


@dataclass(frozen=True)
class Quantized:
    """How many linear layers are in 4 bits, and how many, besides those that are always kept, are not."""

    layers: int
    others: int


def require_nf4(device: torch.device) -> None:
    """Try NF4 on a device: a layer forwards and backwards, and its answers against those of the layer in FP32.

    Raises:
        InvalidError: bitsandbytes does not work there.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            plain, rows = torch.nn.Linear(2 * _BLOCK, 32), torch.randn(64, 2 * _BLOCK)
        wanted = plain(rows).detach()
        given = rows.to(device).requires_grad_(True)
        found = _quantized(plain, torch.float32).to(device)(given)
        found.sum().backward()
        if given.grad is None or not bool(torch.isfinite(given.grad).all()):
            raise ValueError("its gradients are not finite")
        if (error := float((found.detach().cpu() - wanted).norm() / wanted.norm())) > _MOST_ERROR:
            raise ValueError(f"its relative error is {error:.2f}, not below {_MOST_ERROR}")
    except Exception as error:
        raise InvalidError(
            [f"{_FIELD}: bitsandbytes cannot compute with NF4 on this {device.type} ({first_line(error)}); remove it"]
        ) from error


def quantize(model: Any, kept: Collection[str], compute: torch.dtype) -> Quantized:
    """Replace a model's linear layers by ones in NF4; they are quantized when the model moves to its device.

    Args:
        model: changed in place.
        kept: full names of modules that stay as they are, with all below them.
        compute: type of the products.

    Raises:
        InvalidError: no layer can be quantized.
    """
    count = others = 0
    for name, module in list(model.named_modules()):
        if type(module) not in (torch.nn.Linear, Conv1D) or any(f"{name}.".startswith(f"{one}.") for one in kept):
            continue
        if module.weight.shape[0 if isinstance(module, Conv1D) else 1] % _BLOCK:
            others += 1
            continue
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, _quantized(module, compute))
        count += 1
    if count == 0:
        raise InvalidError(
            [f"{_FIELD}: no linear layer of this model has a multiple of {_BLOCK} inputs, as NF4 takes; remove it"]
        )
    model.is_loaded_in_4bit = True
    return Quantized(count, others)


def _quantized(module: Any, compute: torch.dtype) -> Any:
    """A layer like this one, whose weights are quantized on their way to a device."""
    from bitsandbytes import nn

    weight = module.weight.data
    if isinstance(module, Conv1D):  # it stores (inputs, outputs)
        weight = weight.t().contiguous()
    outputs, inputs = weight.shape
    kinds: Any = nn
    layer = kinds.Linear4bit(
        inputs, outputs, bias=module.bias is not None, compute_dtype=compute, quant_type="nf4", device="meta"
    )
    layer.weight = kinds.Params4bit(
        weight, requires_grad=False, compress_statistics=True, quant_type="nf4", module=layer
    )
    # An evaluation on some CPUs would repack the weights and round their scales to BF16, for the training after it too.
    layer.support_avx512bf16_for_cpu = False
    if module.bias is not None:
        layer.bias = torch.nn.Parameter(module.bias.data, requires_grad=False)
    return layer
