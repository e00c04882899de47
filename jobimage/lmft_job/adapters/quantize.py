"""The frozen base in 4 bits (NF4) by bitsandbytes, on a GPU or a CPU: QLoRA, Dettmers et al. 2023.

Each linear layer that an adapter may change is stored in blocks of 64 numbers, as indices into the 16 values of NF4
with a scale for each block, which is itself stored in 8 bits. Embeddings, norms and the output layer keep their type.
"""

from collections.abc import Collection
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from lmft_api.text.wording import first_line
from lmft_job.errors import InvalidError

_FIELD = "spec.training.quantization"


def require_nf4(device: torch.device) -> None:
    """Try NF4 on a device: a layer of 64 inputs forwards and backwards.

    Raises:
        InvalidError: bitsandbytes does not work there.
    """
    try:
        layer = _quantized(torch.nn.Linear(64, 32), torch.float32).to(device)
        given = torch.ones(2, 64, device=device, requires_grad=True)
        layer(given).sum().backward()
        if given.grad is None or not bool(torch.isfinite(given.grad).all()):
            raise ValueError("its gradients are not finite")
    except Exception as error:
        raise InvalidError(
            [f"{_FIELD}: bitsandbytes cannot compute with NF4 on this {device.type} ({first_line(error)}); remove it"]
        ) from error


def quantize(model: Any, kept: Collection[str], compute: torch.dtype) -> int:
    """Replace a model's linear layers by ones in NF4; they are quantized when the model moves to its device.

    Args:
        model: changed in place.
        kept: full names of modules that stay as they are, with all below them.
        compute: type of the products.

    Returns:
        How many layers were replaced.
    """
    count = 0
    for name, module in list(model.named_modules()):
        if type(module) not in (torch.nn.Linear, Conv1D) or any(f"{name}.".startswith(f"{one}.") for one in kept):
            continue
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, _quantized(module, compute))
        count += 1
    model.is_loaded_in_4bit = True
    return count


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
