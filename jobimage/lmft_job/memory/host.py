"""What the processes of a pod hold of the host's memory at their busiest, and whether a stated limit is enough."""

from dataclasses import dataclass

from lmft_api.text.wording import size
from lmft_job.memory.estimating import Spread
from lmft_job.memory.parts import GIB, Parts
from lmft_job.memory.plan import Plan
from lmft_job.sharding.choose import Division

PROCESS_BYTES = 896 << 20
"""Of a process with its libraries and the data that it reads. Measured: 0.8 to 0.9 GiB, a third of it mapped files."""
DRIVER_BYTES = 2 * GIB
"""What CUDA takes of the host's memory in addition, for each process. Assumed."""
SCATTERED = 0.25
"""Share of gradients, activations and logits that a CPU's allocator holds beside them. Chosen to fit measured runs."""
HOST_ERROR = 0.20
"""Error of an estimate: on CPUs 11 % was measured (bench/estimate.py --host); for GPUs unverified."""
_PINNED = 2
"""Pinned memory comes in powers of two, so a copy takes up to twice as much."""
_STEP = GIB // 2


@dataclass(frozen=True)
class Host:
    """Bytes of all processes of a pod; of several pods, the one with rank 0.

    Attributes:
        processes: interpreters and libraries.
        loading: weights, while they are loaded: of one process at a time where they are to be divided, else of each.
        training: what a step holds, where a CPU trains.
        inputs: inputs of checkpointed layers that wait in the host's memory.
        publishing: the whole model, while it is written; merged with its adapter, or put together of its parts.
        copy: of a checkpoint that is written beside training; taken only where there is room, else training waits.
    """

    processes: int
    loading: int = 0
    training: int = 0
    inputs: int = 0
    publishing: int = 0
    copy: int = 0

    @property
    def held(self) -> dict[str, int]:
        """Bytes beside the processes, by the stretch of the run."""
        training = self.training + self.inputs
        return {"loading": self.loading, "training": training, "publishing": self.publishing}

    @property
    def needed(self) -> int:
        """The busiest moment, without a checkpoint's copy."""
        return self.processes + max(self.held.values())

    @property
    def beside(self) -> int:
        """The busiest moment with one."""
        return max(self.needed, self.processes + self.training + self.inputs + self.copy)

    def by_name(self) -> dict[str, int]:
        """Bytes by the name of the part, and the two sums."""
        parts = {name: getattr(self, name) for name in ("processes", "loading", "training", "inputs", "publishing")}
        return {**parts, "copy": self.copy, "needed": self.needed, "beside": self.beside}


def host_of(plan: Plan, parts: Parts, weights: int, spread: Spread, *, local: int, width: int) -> Host:
    """The host's memory of the pod with rank 0.

    Args:
        plan: with which the run starts.
        parts: of one process, at the busiest moment of a step.
        weights: how many the model has, without an adapter.
        spread: how they are held.
        local: processes of a pod.
        width: bytes of a layer's input for one token, of the type that it is computed in.
    """
    whole, divided = 4 * weights, spread.division != Division.NONE
    stored = (parts.adapter or whole // spread.ranks) + parts.optimiser
    writers = local if divided and not parts.adapter else 1
    again = 2 if divided or parts.adapter else 1  # put together or merged, and copied to be written
    moving = parts.gradients + parts.activations + parts.logits
    return Host(
        processes=local * (PROCESS_BYTES + (DRIVER_BYTES if plan.on_gpu else 0)),
        loading=whole * (1 if divided else local),
        training=0 if plan.on_gpu else parts.total + int(SCATTERED * moving),
        inputs=local * _inputs(plan, width) if plan.on_gpu else 0,
        publishing=again * whole,
        copy=writers * stored * (_PINNED if plan.on_gpu else 1),
    )


def _inputs(plan: Plan, width: int) -> int:
    """Of one process: a pinned buffer for each layer, which is a power of two."""
    if not plan.checkpointing.offload:
        return 0
    return plan.checkpointing.layers * (1 << (plan.batch.rows * plan.length * width - 1).bit_length())


def enough(count: int) -> str:
    """A quantity for ``spec.resources.memory``, with the estimate's error on top: ``6.5Gi`` as ``6656Mi``."""
    steps = -(-int(count * (1 + HOST_ERROR)) // _STEP)
    return f"{steps // 2}Gi" if steps % 2 == 0 else f"{steps * 512}Mi"


def advice(host: Host, memory: int | None) -> str:
    """What to do about the pod's memory, in words; empty if nothing.

    Args:
        host: of the pod.
        memory: ``spec.resources.memory`` in bytes; None where the manifest does not say.
    """
    if memory is None:
        return f"set spec.resources.memory to {enough(host.needed)} or more; where it is not set, pods ask for 2Gi"
    if memory < host.needed:
        return (
            f"spec.resources.memory is {size(memory)}, and the pod needs about {size(host.needed)}: set at least "
            f"{enough(host.needed)}, or the kernel may end it (OutOfMemory)"
        )
    if memory < host.beside:
        return (
            f"training waits while checkpoints are written, unless spec.resources.memory is {enough(host.beside)}: a "
            f"copy of one takes {size(host.copy)}"
        )
    return ""
