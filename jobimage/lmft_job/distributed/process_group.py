"""The process group of a run of several processes: torch's own, with gloo on CPUs and NCCL between GPUs.

Only numbers and JSON are exchanged. torch's object collectives unpickle what they receive, and neither gloo nor the
store that processes meet at knows authentication.
"""

import json
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore
from typing_extensions import override

from lmft_api.reasons import ExitCode, Reason
from lmft_job.distributed.group import Agreement, Floats, Group, failure_note
from lmft_job.distributed.world import World
from lmft_job.errors import JobError

T = TypeVar("T")
_PATIENCE = timedelta(hours=24)
"""A rank may wait for rank 0's download as long as that takes; a lost one closes its connection, and ends the wait."""
_NCCL_PATIENCE = timedelta(minutes=30)


class FirstRankError(JobError):
    """Rank 0 failed, and every rank ends as it does."""

    def __init__(self, note: dict[str, object]) -> None:
        super().__init__(Reason(str(note["reason"])), str(note["message"]))
        self.exit_code = ExitCode(int(str(note["exit"])))


class _Flags(Agreement):
    """One sum of a few numbers a step, sent at its end and read at the end of the next, beside the work of that."""

    def __init__(self) -> None:
        self._flight: tuple[dist.Work, torch.Tensor] | None = None

    @override
    def exchange(self, *mine: bool) -> tuple[bool, ...]:
        heard = self.drain() or (False,) * len(mine)
        flags = torch.tensor([int(flag) for flag in mine], dtype=torch.int32)
        work = dist.all_reduce(flags, op=dist.ReduceOp.MAX, async_op=True)
        self._flight = None if work is None else (work, flags)
        return heard

    def drain(self) -> tuple[bool, ...] | None:
        """What was said at the step before."""
        if self._flight is None:
            return None
        (work, flags), self._flight = self._flight, None
        work.wait()
        return tuple(bool(flag) for flag in flags.tolist())


class ProcessGroup(Group):
    """The processes of a run, once all of them have come: see :func:`join`.

    Args:
        world: which of them this is.
        paused: context of a wait for rank 0, which is watched itself.
    """

    def __init__(self, world: World, paused: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        super().__init__(world)
        self._paused = paused

    @override
    def agreement(self) -> Agreement:
        return _Flags()

    @override
    def any(self, flag: bool) -> bool:
        found = torch.tensor([int(flag)], dtype=torch.int32)
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return bool(found.item())

    @override
    def sums(self, values: Floats) -> Floats:
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.numpy()

    @override
    def total(self, value: T) -> T:
        found: Any = value
        found = found.clone()
        dist.all_reduce(found)
        result: T = found
        return result

    @override
    def gather(self, values: Floats) -> list[Floats]:
        return [np.frombuffer(data, np.float64) for data in self.gather_bytes(values.astype(np.float64).tobytes())]

    @override
    def gather_bytes(self, data: bytes) -> list[bytes]:
        size = self.world.size
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(size)]
        dist.all_gather(lengths, torch.tensor([len(data)], dtype=torch.int64))
        counts = [int(length.item()) for length in lengths]
        longest = max(1, *counts)
        mine = torch.zeros(longest, dtype=torch.uint8)
        mine[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else mine[:0]
        found = [torch.zeros(longest, dtype=torch.uint8) for _ in range(size)]
        dist.all_gather(found, mine)
        return [part[:count].numpy().tobytes() for part, count in zip(found, counts, strict=True)]

    @override
    def from_main(self, make: Callable[[], T], others: Callable[[], None] = lambda: None) -> T:
        if not self.world.main:
            others()
            with self._paused():
                said = json.loads(self._broadcast(b""))
            if "failed" in said:
                raise FirstRankError(said["failed"])
            made: T = said["made"]
            return made
        try:
            found = make()
        except JobError as error:
            self._broadcast(json.dumps({"failed": failure_note(error)}).encode())
            raise
        self._broadcast(json.dumps({"made": found}).encode())
        return found

    @override
    def wait(self) -> None:
        self.any(False)

    def _broadcast(self, data: bytes) -> bytes:
        length = torch.tensor([len(data)], dtype=torch.int64)
        dist.broadcast(length, src=0)
        body = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.zeros(0, dtype=torch.uint8)
        if not self.world.main:
            body = torch.zeros(int(length.item()), dtype=torch.uint8)
        dist.broadcast(body, src=0)
        return body.numpy().tobytes()


def join(
    world: World, *, cuda: bool, seconds: float, paused: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Group:
    """Meet the other processes, at the address in MASTER_ADDR and MASTER_PORT.

    Args:
        world: which process this is.
        cuda: whether tensors of GPUs are exchanged too.
        seconds: how long to wait for the others.
        paused: see :class:`ProcessGroup`.

    Raises:
        RuntimeError: they did not come, or cannot be reached; torch's own message.
    """
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    deadline = time.monotonic() + seconds
    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        world.size,
        world.main,
        timeout=timedelta(seconds=max(1.0, deadline - time.monotonic())),
        wait_for_workers=True,
        multi_tenant=True,
    )
    if cuda:
        torch.cuda.set_device(world.local_rank)
    dist.init_process_group(
        backend, store=store, rank=world.rank, world_size=world.size, timeout=_NCCL_PATIENCE if cuda else _PATIENCE
    )
    return ProcessGroup(world, paused)
