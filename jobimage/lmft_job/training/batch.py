"""What to do if the accelerator runs out of memory: half the rows in a pass, twice the passes in a step.

The step then sees the same rows, so the figures agree within rounding. The process is replaced, since memory held by
an allocator or a graph is only reliably freed in a fresh one.
"""

import json
from dataclasses import dataclass

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
            raise AcceleratorMemoryError(
                "the accelerator's memory is too small even for a batch of 1. Choose a smaller model or "
                "spec.dataset.blockSize, set spec.training.gradientCheckpointing, or take a larger GPU."
            )
        step = self.rows * self.accumulation
        if self.step is not None:
            return Batch(self.rows // 2, -(-step // (self.rows // 2)), self.step)
        rows = max(size for size in range(1, self.rows // 2 + 1) if step % size == 0)
        return Batch(rows, step // rows)


@dataclass(frozen=True)
class Adjustment:
    """What the run adjusted in order to continue; stored, so that later attempts start with it."""

    batch: Batch
    notes: tuple[str, ...] = ()

    @classmethod
    def load(cls, store: Store, planned: Batch) -> "Adjustment":
        """The adjustment of earlier attempts of the run, or the plan."""

        def read(key: str) -> Adjustment | None:
            return read_note(
                store, key, lambda note: cls(Batch(int(note["rows"]), int(note["accumulation"])), tuple(note["notes"]))
            )

        found = read(ADJUSTMENT_KEY) or cls(planned)
        # Whoever wrote a later one may have ended before it said so in the file that releases before this one read.
        while (later := read(_key(len(found.notes) + 1))) is not None and len(later.notes) > len(found.notes):
            found = later
        return found

    def after_shortage(self, step: int) -> "Adjustment":
        """The next adjustment to try."""
        batch = self.batch.smaller()
        note = (
            f"out of accelerator memory at step {step}: perDeviceBatchSize {self.batch.rows} → {batch.rows}, "
            f"gradientAccumulationSteps {self.batch.accumulation} → {batch.accumulation}"
        )
        return Adjustment(batch, (*self.notes, note))

    def save_first(self, store: Store) -> "Adjustment":
        """Store it for the next process, unless another process of the run was first; returns the one that stands."""
        if not store.put_if_absent(_key(len(self.notes)), self._body()):
            return Adjustment.load(store, self.batch)
        self.save(store)
        return self

    def save(self, store: Store) -> None:
        """Store it for the next process."""
        store.put_bytes(ADJUSTMENT_KEY, self._body())

    def _body(self) -> bytes:
        body = {"rows": self.batch.rows, "accumulation": self.batch.accumulation, "notes": self.notes}
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
