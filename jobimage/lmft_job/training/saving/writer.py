"""Writes checkpoints into folders and hands them on; beside training where training would wait too long.

To write one beside training, its tensors are copied into the host's memory while training waits; the thread that
uploads it writes them first. All processes write in the same way, and ask each other at the same places in both.
"""

import errno
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lmft_api.text.wording import size
from lmft_api.wire.layout import BEST_FOLDER
from lmft_job.distributed.group import Group
from lmft_job.errors import JobError
from lmft_job.sharding.divide import trains_divided
from lmft_job.storage import disk_error, link_or_copy
from lmft_job.training.history import TrainingHistory
from lmft_job.training.saving.buffers import HostBuffers
from lmft_job.training.saving.host_memory import free_memory
from lmft_job.training.saving.rule import Cost, fits
from lmft_job.training.sharded.parts import common_folder, keep_part, stores_weights

Finish = Callable[[Path], None]
"""Writes the rest of a checkpoint into its folder."""
_FULL_BELOW_BYTES = 1 << 20


class CheckpointSink(Protocol):
    """Takes checkpoint folders, which belong to it from then on."""

    def submit(self, folder: Path, step: int, into: str = "", finish: Finish | None = None) -> None:
        """Upload one; waits for the previous one.

        Args:
            folder: with the files.
            step: optimiser steps done.
            into: name of the folder that several processes put their parts into; empty if this one has all of it.
            finish: called before the upload, beside training.
        """

    def check(self) -> None:
        """Raise the failure of a checkpoint written or uploaded beside training, if there was one."""

    def wait(self) -> object:
        """Wait until all are uploaded."""


@dataclass(frozen=True)
class _Part:
    """Tensors in whatever they are nested, and what writes them, or a copy of them, into a folder."""

    tensors: Any
    write: Callable[[Any, Path], None]


class CheckpointWriter:
    """Stores the checkpoints of a run.

    Args:
        model: whose weights are trained.
        group: the processes.
        uploads: takes the checkpoints.
        folder: scratch space, with the best weights if they are wanted.
        say: called with messages for people.
        free: memory that is left, in bytes.

    Attributes:
        beside: whether the next checkpoint is to be written beside training; the same in every process.
    """

    def __init__(
        self,
        model: Any,
        group: Group,
        uploads: CheckpointSink,
        folder: Path,
        say: Callable[[str], None],
        free: Callable[[], int | None] = free_memory,
    ) -> None:
        self.beside = False
        self._model, self._group, self._uploads, self._folder = model, group, uploads, folder
        self._say, self._free, self._said = say, free, ""
        self._buffers = HostBuffers()
        self._parts: list[_Part] | None = None

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Inside, what is given to :meth:`write` is kept for :meth:`store`; a full disk is said as such."""
        self._parts = []
        try:
            with disk_trouble(self._folder):
                yield
        except BaseException:
            self._parts = None
            raise

    def write(self, tensors: Any, write: Callable[[Any, Path], None], folder: Path) -> None:
        """Write a file of a checkpoint with tensors in it, now or later.

        Args:
            tensors: in whatever they are nested.
            write: writes the tensors, or a copy of them, into a folder, perhaps in another thread.
            folder: the checkpoint's.
        """
        if self._parts is None:
            write(tensors, folder)
        else:
            self._parts.append(_Part(tensors, write))

    def store(self, folder: Path, step: int, history: TrainingHistory, times: tuple[float, float], last: bool) -> None:
        """Complete a checkpoint and hand it on; all processes call it.

        Args:
            folder: with what was written so far.
            step: optimiser steps done.
            history: of the run; goes into the checkpoint.
            times: when the last checkpoint ended, and when this one began.
            last: whether training ends with it, so that there is nothing to be done beside it.
        """
        parts, self._parts = self._parts or [], None
        finish = None if last or not self.beside else self._copied(parts)
        if finish is None:
            _finish_now(parts, folder, self._folder)
        written = time.monotonic() - times[1]
        self._hand_on(folder, step, history, finish)
        if not self.beside and not last:
            self._judge(written if parts else 0.0, time.monotonic() - times[0])

    def _judge(self, seconds: float, interval: float) -> None:
        """Choose for the next checkpoint, by the process for which this one was dearest."""
        costs = [Cost(*found) for found in self._group.gather(np.array([seconds, interval]))]
        worst = max(costs, key=lambda cost: cost.share)
        if worst.dear:
            self.beside = True
            self._say(f"checkpoints are written beside training from now on: writing one took {worst}")

    def wait(self) -> None:
        """Wait until all checkpoints are stored, of all processes; their copies are given up."""
        self._wait()
        self._buffers.release()

    def _wait(self) -> None:
        def wait() -> None:
            self._uploads.wait()

        self._group.from_main(wait, wait)

    def _copied(self, parts: list[_Part]) -> Finish | None:
        """What writes a copy of the tensors; None if there is no memory for one."""
        self._wait()  # the buffers hold the checkpoint before until it is written
        tensors = [part.tensors for part in parts]
        needed, free = self._buffers.lacking(tensors), self._free()
        writers = self._group.world.local_size if trains_divided(self._model) else 1
        room = fits(needed, writers, free)
        if not self._group.all(room):
            left = "unknown" if free is None else size(free)
            here = f"a copy takes {size(needed * writers)} of memory, and what is left is {left}"
            self._waits("another process has no memory for its copy" if room else here)
            return None
        try:
            copies = self._buffers.copy(tensors)
        except MemoryError as error:
            self._waits(str(error).splitlines()[0] if str(error) else "no memory for a copy")
            return None
        home = self._folder
        made = [_Part(copied, part.write) for copied, part in zip(copies, parts, strict=True)]

        def finish(folder: Path) -> None:
            _finish_now(made, folder, home)

        return finish

    def _waits(self, why: str) -> None:
        """Say once why training waits for a checkpoint that was to be written beside it."""
        if not self._said:
            self._said = why
            self._say(f"training waits while checkpoints are written: {why}")

    def _hand_on(self, folder: Path, step: int, history: TrainingHistory, finish: Finish | None) -> None:
        into, best = common_folder(self._model, self._group), self._folder / BEST_FOLDER

        def submit() -> None:
            if best.is_dir():
                shutil.copytree(best, folder / BEST_FOLDER, copy_function=link_or_copy)
            self._uploads.submit(folder, step, into, finish)

        def submit_all() -> None:
            history.save(folder)
            submit()

        def submit_part() -> None:
            if into and stores_weights(self._model, self._group):
                keep_part(folder)
                submit()
            else:
                shutil.rmtree(folder)

        self._group.from_main(submit_all, submit_part)


def _finish_now(parts: list[_Part], folder: Path, home: Path) -> None:
    with disk_trouble(home):
        for part in parts:
            part.write(part.tensors, folder)


@contextmanager
def disk_trouble(folder: Path) -> Iterator[None]:
    """Translates a full disk, however the writing library reports it; any other error passes unchanged."""
    try:
        yield
    except JobError:
        raise
    except Exception as error:
        if isinstance(error, OSError):
            raise disk_error(error, folder) from error
        if "No space left" in str(error) or shutil.disk_usage(folder).free < _FULL_BELOW_BYTES:
            raise disk_error(OSError(errno.ENOSPC, str(error)), folder) from error
        raise
