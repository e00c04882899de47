"""Device and precision of a model."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lmft_api.reasons import Reason
from lmft_api.spec import Precision
from lmft_api.spec.resolved import Settings
from lmft_job.distributed.world import ALONE, World
from lmft_job.errors import InvalidError, RefusedError


@dataclass(frozen=True)
class Arithmetic:
    """Device and precision of a model.

    Attributes:
        device: torch device.
        autocast: dtype of matrix products; None for FP32 throughout. Weights are FP32 either way.
    """

    device: torch.device
    autocast: torch.dtype | None = None

    def context(self) -> AbstractContextManager[Any]:
        """Context for forward passes outside Trainer, so that they compute in the same precision as those inside."""
        return torch.autocast(self.device.type, self.autocast) if self.autocast else nullcontext()

    @property
    def evaluation_dtype(self) -> str:
        """Precision of evaluations, for the report."""
        return "float32" if self.autocast is None else f"{str(self.autocast).removeprefix('torch.')} (autocast)"


def host_memory(limit_file: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Bytes of memory of this machine, or of the container's limit if that is lower."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = limit_file.read_text().strip() if limit_file.is_file() else "max"
    return min(memory, int(limit)) if limit.isdecimal() else memory


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
    """Precision ``auto`` is BF16 if the accelerator supports it, else FP32."""
    wanted = settings.training.precision
    if wanted == Precision.AUTO:
        fits = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return Arithmetic(device, torch.bfloat16 if fits else None)
    return Arithmetic(device, {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}.get(wanted))


def choose_device(gpus: int, *, required: bool, say: Callable[[str], None], world: World = ALONE) -> torch.device:
    """The GPU of this process if the manifest requests one, else the CPU.

    Args:
        gpus: ``spec.resources.gpusPerNode``.
        required: whether a missing GPU ends the run, as in a pod; on a laptop a note is enough.
        say: called with the note.
        world: which process this is; each of a pod has its own GPU.

    Raises:
        InvalidError: more than one GPU, and nobody started a process for each.
        RefusedError: AcceleratorMissing, if a GPU is required.
    """
    if gpus > world.local_size:
        raise InvalidError(
            [
                f"spec.resources.gpusPerNode: {gpus} GPUs take as many processes, which a cluster starts; here there "
                f"is {world.local_size}. Set {world.local_size}"
            ]
        )
    if gpus == 0:
        return torch.device("cpu")
    if torch.cuda.is_available() and torch.cuda.device_count() > world.local_rank:
        return torch.device("cuda", world.local_rank)
    if required:
        raise RefusedError(
            Reason.ACCELERATOR_MISSING,
            "spec.resources.gpusPerNode asks for a GPU, and this pod sees none. Check the node's driver and device "
            "plugin, and that spec.resources.gpuResourceName is a resource of this cluster.",
        )
    say("no GPU here: training on the CPU, which is slower")
    return torch.device("cpu")
