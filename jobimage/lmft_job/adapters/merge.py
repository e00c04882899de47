"""A saved adapter on its base model's own weights, as its users load it: with peft, from its folder."""

import warnings
from pathlib import Path
from typing import Any

import torch

from lmft_job.adapters.attach import narrow_base


def worn(base: Any, adapter: Path, dtype: torch.dtype) -> Any:
    """The base model with the adapter beside its weights.

    Args:
        base: a fresh copy in FP32; changed in place.
        adapter: folder of the adapter.
        dtype: of the base's weights, those of the adapter stay FP32.
    """
    from peft import PeftModel

    base.requires_grad_(False)
    narrow_base(base, dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        return PeftModel.from_pretrained(base, str(adapter), torch_device="cpu")


def merged(base: Any, adapter: Path, dtype: torch.dtype) -> Any:
    """The base model with the adapter's update in its weights.

    Args:
        base: a fresh copy in FP32, so that the sum is rounded once; changed in place.
        adapter: folder of the adapter.
        dtype: of the result.

    Raises:
        ValueError: the sums are not finite.
    """
    model: Any = worn(base, adapter, torch.float32).merge_and_unload(safe_merge=True)
    model.requires_grad_(False)
    narrow_base(model, dtype)
    return model
