"""Whether a run's model is divided among its processes: by what each of them would have to hold. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from lmft_api.spec import Optimizer, Parallelism, Precision
from lmft_api.spec.resolved import Settings
from lmft_job.distributed.world import World

TRAINED_BYTES = 18
"""Of a trained weight: itself, its gradient and AdamW's two averages in FP32, and its copy in 16 bits."""
MOST_OF_DEVICE = 0.5
"""Share of a device's memory that weights and what belongs to them may take; the rest is for activations."""


class Division(StrEnum):
    """How the weights are held."""

    NONE = "DDP"
    """Every process holds all of them."""
    NODES = "FSDP within each node"
    """Each node holds all of them, a part in each of its processes."""
    ALL = "FSDP"
    """Each process holds a part."""


@dataclass(frozen=True)
class Weights:
    """A model's weights.

    Attributes:
        trained: how many are trained.
        frozen: how many are not.
        frozen_bytes: of one that is not: 2 in BF16, 4 in FP32.
    """

    trained: int
    frozen: int = 0
    frozen_bytes: int = 4

    def bytes_in(self, parts: int) -> int:
        """Bytes of a process without activations; an adapter is not divided, the frozen weights beside it are."""
        if self.frozen:
            return TRAINED_BYTES * self.trained + self.frozen_bytes * self.frozen // parts
        return TRAINED_BYTES * self.trained // parts


def undividable(settings: Settings) -> list[str]:
    """Why a run's weights cannot be divided: the fields, and what to set instead. Empty if they can."""
    training, found = settings.training, []
    if training.optimizer == Optimizer.ADAFACTOR:
        found.append(
            "spec.training.optimizer: Adafactor keeps sums over rows and columns, which FSDP does not divide; take "
            "AdamW, or parallelism DDP"
        )
    if training.precision == Precision.FP16:
        found.append(
            "spec.training.precision: the loss scaling of FP16 does not go with FSDP; take BF16, or parallelism DDP"
        )
    return found


def may_divide(settings: Settings, world: World, memory: int | None) -> bool:
    """Whether a run's weights may turn out to be divided; decided before they are counted.

    Args:
        settings: of the run.
        world: its processes.
        memory: bytes of a device; None where it is not known, as on CPUs.
    """
    training = settings.training
    automatic = training.parallelism == Parallelism.AUTO and memory is not None
    return (
        not world.alone
        and (automatic or training.parallelism == Parallelism.FSDP)
        and training.quantization is None
        and not undividable(settings)
    )


def choose(settings: Settings, weights: Weights, world: World, memory: int | None) -> Division:
    """How a run's weights are held.

    Args:
        settings: of the run.
        weights: of its model.
        world: its processes.
        memory: bytes of a device; None where it is not known, as on CPUs.
    """
    if not may_divide(settings, world, memory):
        return Division.NONE
    most = None if memory is None else MOST_OF_DEVICE * memory
    if settings.training.parallelism == Parallelism.AUTO and most is not None and weights.bytes_in(1) <= most:
        return Division.NONE
    several = world.nodes > 1 and world.local_size > 1
    if several and most is not None and weights.bytes_in(world.local_size) <= most:
        return Division.NODES
    return Division.ALL
