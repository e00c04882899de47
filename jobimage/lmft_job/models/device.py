"""Where and in which precision a model computes."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from lmft_api.spec import Precision
from lmft_api.spec.resolved import Settings


@dataclass(frozen=True)
class Arithmetic:
    """Where and in which precision the model computes.

    Attributes:
        device: torch device.
        autocast: dtype of matrix products; None for FP32 throughout. Weights are FP32 either way.
    """

    device: torch.device
    autocast: torch.dtype | None = None

    def context(self) -> AbstractContextManager[Any]:
        """What forward passes outside Trainer run in, so that they compute as those inside."""
        return torch.autocast(self.device.type, self.autocast) if self.autocast else nullcontext()

    @property
    def evaluation_dtype(self) -> str:
        """For the report."""
        return "float32" if self.autocast is None else f"{str(self.autocast).removeprefix('torch.')} (autocast)"


def device_name(arithmetic: Arithmetic) -> str:
    """For people: ``CPU`` or the GPU's name."""
    if arithmetic.device.type == "cpu":
        return "CPU"
    import torch

    return torch.cuda.get_device_name(arithmetic.device)


def precision_name(arithmetic: Arithmetic) -> str:
    """FP32, BF16 or FP16."""
    return {"torch.bfloat16": "BF16", "torch.float16": "FP16"}.get(str(arithmetic.autocast), "FP32")


def arithmetic_for(settings: Settings, device: torch.device) -> Arithmetic:
    """Auto is BF16 where the accelerator computes in it, FP32 elsewhere."""
    wanted = settings.training.precision
    if wanted == Precision.AUTO:
        fits = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return Arithmetic(device, torch.bfloat16 if fits else None)
    return Arithmetic(device, {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}.get(wanted))
