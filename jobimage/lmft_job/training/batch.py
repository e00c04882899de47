"""What to do if the accelerator runs out of memory: compute activations again, then take fewer rows in a pass.

Checkpointed layers come first, for they do not change a bit of the figures and cost a third of the time at most. Then
half the rows in a pass and twice the passes in a step: the step sees the same rows, so the figures agree within
rounding. With one row, the inputs of checkpointed layers go to the host's memory, last, since the host may be short of
it as well. The process is replaced, since memory held by an allocator or a graph is only reliably freed in a fresh one.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

from lmft_api.wire.layout import ADJUSTMENT_KEY, ADJUSTMENTS
from lmft_job.distributed.shares import plan_step
from lmft_job.distributed.world import World
from lmft_job.errors import AcceleratorMemoryError
from lmft_job.storage import Store
from lmft_job.storage.notes import read_note

_SAID = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


@dataclass(frozen=True)
class Batch:
    """Rows in one forward pass, and forward passes in one optimiser step.

    Attributes:
        rows: in a pass of one process, at most.
        accumulation: passes of one process in a step.
        step: rows in a step of all processes, where it is not the same as one process's rows × accumulation.
    """

    rows: int
    accumulation: int = 1
    step: int | None = None

    @property
    def step_rows(self) -> int:
        """Rows in a step, of all processes."""
        return self.step or self.rows * self.accumulation

    def smaller(self) -> "Batch":
        """About half the rows and correspondingly more passes, with the same rows in a step.

        Raises:
            AcceleratorMemoryError: there is only one row.
        """
        if self.rows == 1:
            raise AcceleratorMemoryError("the accelerator's memory is too small even for a batch of 1")
        step = self.rows * self.accumulation
        if self.step is not None:
            return Batch(self.rows // 2, -(-step // (self.rows // 2)), self.step)
        rows = max(size for size in range(1, self.rows // 2 + 1) if step % size == 0)
        return Batch(rows, step // rows)


ALL_LAYERS = 1 << 20
"""More layers than a model has."""


@dataclass(frozen=True)
class Checkpointing:
    """Layers that keep only their input for the backward pass.

    Attributes:
        layers: how many, from the first one on; more than the model has for all of them.
        offload: whether the inputs wait in the host's memory.
    """

    layers: int = 0
    offload: bool = False

    def more(self, most: int) -> "Checkpointing | None":
        """Half of the layers, then all of them; None if they are."""
        return next((Checkpointing(count) for count in (-(-most // 2), most) if count > self.layers), None)

    def noted(self, of: int) -> str:
        """It in a note: ``6 of 12 layers``."""
        return f"{min(self.layers, of)} of {of} layers{', with their inputs in host memory' if self.offload else ''}"


NO_CHECKPOINTING = Checkpointing()


def planned_checkpointing(wanted: bool | None) -> Checkpointing:
    """What a run starts with if nothing is known of the device: ``spec.training.gradientCheckpointing``."""
    return Checkpointing(ALL_LAYERS) if wanted else NO_CHECKPOINTING


@dataclass(frozen=True)
class Adjustment:
    """What the run adjusted in order to continue; stored, so that later attempts start with it.

    Attributes:
        batch: rows and passes.
        notes: one for each adjustment, for people.
        checkpointing: of layers.
    """

    batch: Batch
    notes: tuple[str, ...] = ()
    checkpointing: Checkpointing = NO_CHECKPOINTING

    @classmethod
    def load(cls, store: Store, planned: Batch, checkpointing: Checkpointing = NO_CHECKPOINTING) -> "Adjustment":
        """The adjustment of earlier attempts of the run, or the plan."""

        def understand(note: dict[str, Any]) -> Adjustment:
            batch = Batch(int(note["rows"]), int(note["accumulation"]))
            layers = note.get("checkpointedLayers")  # releases before this one only made the batch smaller
            kept = checkpointing if layers is None else Checkpointing(int(layers), bool(note.get("offload")))
            return cls(batch, tuple(note["notes"]), kept)

        def read(key: str) -> Adjustment | None:
            return read_note(store, key, understand)

        found = read(ADJUSTMENT_KEY) or cls(planned, (), checkpointing)
        # Whoever wrote a later one may have ended before it said so in the file that releases before this one read.
        while (later := read(_key(len(found.notes) + 1))) is not None and len(later.notes) > len(found.notes):
            found = later
        return found

    def after_shortage(self, step: int, layers: int) -> "Adjustment":
        """The next adjustment to try.

        Args:
            step: optimiser steps done.
            layers: that may be checkpointed; 0 if the manifest or the model does not admit it.

        Raises:
            AcceleratorMemoryError: nothing is left to try.
        """
        said = f"out of accelerator memory at step {step}: "
        before = self.checkpointing
        after = before.more(layers)
        if after is None and self.batch.rows == 1 and layers and not before.offload:
            after = replace(before, offload=True)
        if after is not None:
            said += f"activation checkpointing of {after.noted(layers)}"
            return Adjustment(self.batch, (*self.notes, said), after)
        batch = self._smaller(layers)
        said += (
            f"perDeviceBatchSize {self.batch.rows} → {batch.rows}, "
            f"gradientAccumulationSteps {self.batch.accumulation} → {batch.accumulation}"
        )
        return Adjustment(batch, (*self.notes, said), before)

    def _smaller(self, layers: int) -> Batch:
        try:
            return self.batch.smaller()
        except AcceleratorMemoryError as error:
            tried = ", with all layers checkpointed and their inputs in host memory" if layers else ""
            allow = "" if layers else "remove spec.training.gradientCheckpointing: false if it is set, "
            raise AcceleratorMemoryError(
                f"{error}{tried}. Choose a smaller model or spec.dataset.blockSize, set spec.training.adapter, "
                f"{allow}or take a larger GPU."
            ) from error

    def save_first(self, store: Store) -> "Adjustment":
        """Store it for the next process, unless another process of the run was first; returns the one that stands."""
        if not store.put_if_absent(_key(len(self.notes)), self._body()):
            return Adjustment.load(store, self.batch, self.checkpointing)
        self.save(store)
        return self

    def save(self, store: Store) -> None:
        """Store it for the next process."""
        store.put_bytes(ADJUSTMENT_KEY, self._body())

    def _body(self) -> bytes:
        body = {
            "rows": self.batch.rows,
            "accumulation": self.batch.accumulation,
            "notes": self.notes,
            "checkpointedLayers": self.checkpointing.layers,
            "offload": self.checkpointing.offload,
        }
        return json.dumps(body).encode()


def _key(number: int) -> str:
    return f"{ADJUSTMENTS}/{number:04d}.json"


def planned_batch(rows: int, effective: int, world: World) -> Batch:
    """What one process does in a step.

    Args:
        rows: most rows in a pass.
        effective: rows in a step, of all processes.
        world: the processes.

    Raises:
        InvalidError: there are more processes than rows in a step.
    """
    plan = plan_step(effective, rows, world.size)
    undivided = world.alone and effective == rows * plan.passes
    return Batch(rows, plan.passes, None if undivided else effective)


def is_shortage(error: RuntimeError) -> bool:
    """Whether an error means that the accelerator's memory is full; libraries below torch have their own messages."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _SAID)
