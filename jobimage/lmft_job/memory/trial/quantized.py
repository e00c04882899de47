"""Linear layers whose weights are packed in 4 bits, on fake tensors: what bitsandbytes' NF4 holds and what it unpacks.

A layer holds half a byte for a weight and a scale for each block of them. It unpacks its weights into the type of its
input for a pass forward, and again for one backward; only the input and the packed weights live between.
"""

from typing import Any

import torch
import torch.nn.functional as F

_BLOCK = 64
_SCALE_BYTES = 4
"""Of each block's scale, which is FP32 without nested quantization."""


class _Product(torch.autograd.Function):
    """The product with weights that are unpacked for it."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, packed: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        ctx.shape, ctx.dtype = shape, inputs.dtype
        return F.linear(inputs, torch.empty(shape, dtype=inputs.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (gradient,) = gradients
        return gradient @ torch.empty(ctx.shape, dtype=gradient.dtype), None, None


class PackedLinear(torch.nn.Linear):
    """A linear layer with packed, frozen weights."""

    def __init__(self, of: torch.nn.Linear) -> None:
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features, self.bias = of.in_features, of.out_features, of.bias
        count = of.weight.numel()
        size = count // 2 + count // _BLOCK * _SCALE_BYTES
        self.weight = torch.nn.Parameter(torch.empty(size, dtype=torch.uint8), requires_grad=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """As a linear layer."""
        if torch.is_autocast_enabled("cpu"):
            inputs = inputs.to(torch.get_autocast_dtype("cpu"))
        result: torch.Tensor = _Product.apply(inputs, self.weight, (self.out_features, self.in_features))
        return result if self.bias is None else result + self.bias


def pack(model: Any) -> None:
    """Replace all linear layers of a model but its output layer."""
    kept = model.get_output_embeddings()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Linear and child is not kept:
                setattr(parent, name, PackedLinear(child))
