"""A saved adapter on its base model's own weights, as its users load it: with peft, from its folder."""

import warnings
from pathlib import Path
from typing import Any

import torch

from lmft_job.adapters.attach import narrow_base, without_quantization


def worn(base: Any, adapter: Path) -> Any:
    """The base model with the adapter beside its weights.

    Args:
        base: a fresh copy in the type to compute in; changed in place. The adapter's weights stay FP32.
        adapter: folder of the adapter.
    """
    from peft import PeftModel

    base.requires_grad_(False)
    with warnings.catch_warnings(), without_quantization():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        return PeftModel.from_pretrained(base, str(adapter), torch_device="cpu")


def merged(base: Any, adapter: Path, dtype: torch.dtype) -> Any:
    """The base model with the adapter's update in its weights.

    Layer by layer in FP32, so that each sum is rounded once and the memory is that of one copy and one layer.

    Args:
        base: a fresh copy in its own type; changed in place.
        adapter: folder of the adapter.
        dtype: of the result.

    Raises:
        ValueError: the sums are not finite.
    """
    from peft.tuners.lora import LoraLayer

    model = worn(base, adapter)
    for layer in [module for module in model.modules() if isinstance(module, LoraLayer)]:
        weight = layer.get_base_layer().weight
        weight.data = weight.data.float()
        layer.merge(safe_merge=True)
        # peft gives the layer another tensor
        weight = layer.get_base_layer().weight
        weight.data = weight.data.to(dtype)
    bare: Any = model.unload()
    bare.requires_grad_(False)
    narrow_base(bare, dtype)
    return bare


def release(model: Any) -> None:
    """Free the memory of a model's weights, whoever still holds the model; it cannot be used afterwards."""
    for parameter in model.parameters():
        parameter.grad = None
        parameter.data = parameter.data.new_empty(0)
