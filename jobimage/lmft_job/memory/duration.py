"""How fast a run trains, as a range: from what this machine computes now, or from a table of GPUs."""

import re
import time
from dataclasses import dataclass

import torch

from lmft_job.memory.plan import Plan

PEAK_TFLOPS = (
    ("H200 NVL", 835.5), ("H200", 989),
    ("H100 NVL", 835.5), ("H100 PCIe", 756.5), ("H100", 989),
    ("A100", 312),
    ("L4", 121),
    ("T4", 65),
    ("V100-PCIE", 112), ("V100S", 130), ("V100", 125),
)  # fmt: skip
"""Peak of matrix products in 16 bits, dense, by a part of the device's name; from NVIDIA's data sheets."""
GPU_SHARES = (0.10, 0.40)
"""Least and most of the peak that training reaches. Measured: 0.11 to 0.30 (GPT-2 on an H100, by acceleration)."""
CPU_SHARES = (0.25, 1.0)
"""Least and most of the rate of large products. Assumed: small models are slower, nothing is faster."""
_SIDE = 768


@dataclass(frozen=True)
class Rate:
    """Tokens a second.

    Attributes:
        least: the slowest that is expected.
        most: the fastest.
        source: what it is computed from.
    """

    least: float
    most: float
    source: str


def peak_tflops(device: str) -> float | None:
    """The peak of a GPU by its name; None where it is not known, or only a part of one (MIG) computes."""
    if " MIG " in device:
        return None
    return next((peak for part, peak in PEAK_TFLOPS if re.search(rf"\b{part}\b", device, re.IGNORECASE)), None)


def rate_for(flops: float, plan: Plan, gpu: str | None) -> Rate | None:
    """The range of the training rate.

    Args:
        flops: floating-point operations for a token, forward and backward.
        plan: of a step.
        gpu: name of the device; None where the run has one that is not here.
    """
    if not plan.on_gpu:
        measured = _products_per_second()
        low, high = (share * measured / flops for share in CPU_SHARES)
        return Rate(low, high, f"{measured / 1e9:,.0f} GFLOP/s of products measured on this CPU")
    peak = None if gpu is None else peak_tflops(gpu)
    if gpu is None or peak is None:
        return None
    low, high = (share * peak * 1e12 / flops for share in GPU_SHARES)
    return Rate(low, high, f"{GPU_SHARES[0]:.0%} to {GPU_SHARES[1]:.0%} of the {peak:g} TFLOP/s of {gpu}")


def _products_per_second() -> float:
    """Operations a second of products of matrices in FP32: the best of a few tries, some hundredths of a second."""
    one = torch.ones(_SIDE, _SIDE)
    best = 0.0
    for _ in range(4):
        began = time.perf_counter()
        one @ one
        best = max(best, 2 * _SIDE**3 / (time.perf_counter() - began))
    return best


def span(seconds: tuple[float, float]) -> str:
    """``12 to 45 min``."""
    unit, name = next(((u, n) for u, n in ((3600.0, "h"), (60.0, "min")) if seconds[1] >= 2 * u), (1.0, "s"))
    low, high = (f"{value / unit:,.0f}" if value / unit >= 10 else f"{value / unit:,.1f}" for value in seconds)
    return f"{low} to {high} {name}"
