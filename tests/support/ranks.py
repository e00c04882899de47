"""Attempts of several ranks, each a forked child that torchrun's variables make a rank."""

import os
import socket
import time
from pathlib import Path
from typing import Any

from support.forked import TERM, Child, attempt, run_folder

INTERRUPTED = 75


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start_ranks(
    home: Path, spec: dict[str, Any], size: int, number: int = 1, *, pods: int = 1, **options: Any
) -> list[Child]:
    """Start an attempt of several ranks, evenly in pods."""
    port, each = free_port(), size // pods
    return [
        attempt(home, spec, number, variables=_variables(rank, size, each, port), **options) for rank in range(size)
    ]


def _variables(rank: int, size: int, each: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank % each),
        "LOCAL_WORLD_SIZE": str(each),
        "GROUP_RANK": str(rank // each),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "LMFT_RENDEZVOUS_SECONDS": "100",
    }


def end_ranks(children: list[Child]) -> list[int]:
    """Wait for all; their exit codes."""
    return [child.wait() for child in children]


def complete_ranks(home: Path, spec: dict[str, Any], size: int, number: int = 1, **options: Any) -> list[Child]:
    """Run an attempt of several ranks to its end; all must be done."""
    children = start_ranks(home, spec, size, number, **options)
    codes = end_ranks(children)
    logs = "\n".join(child.log.read_text()[-2500:] + "\n".join(child.lines[-3:]) for child in children)
    assert codes == [0] * size, logs
    return children


def stopped(
    home: Path, spec: dict[str, Any], size: int, signalled: int, *, at: int, number: int = 1, name: str = "toy"
) -> int:
    """An attempt of which one rank is asked to stop at a step; the step that all of them have saved."""
    options: dict[str, Any] = {"patch": _held_from(at, signalled), "name": name}
    children = (
        [attempt(home, spec, number, **options)]
        if size == 1
        else start_ranks(home, spec, size, number, pods=size, **options)
    )
    for line in children[0].events():
        if line.startswith("step") and int(line.split()[1]) >= at:
            break
    children[signalled].signal(TERM)
    codes = end_ranks(children)
    assert codes == [INTERRUPTED] * size, "\n".join(child.log.read_text()[-2000:] for child in children)
    # Rank 0 alone has stored the checkpoint, and all were at its step.
    [newest] = {child.result["checkpoint"]["step"] for child in children if child.result.get("checkpoint")}
    manifests = sorted((run_folder(home, name) / "checkpoints").glob("*/*/MANIFEST.json"))
    assert manifests[-1].parent.name == f"step-{newest:08d}"
    assert {child.result["counts"]["steps"] for child in children} == {newest}
    return int(newest)


def _held_from(at: int, signalled: int) -> Any:
    """A patch: after a step one rank goes no further before it is asked to stop, and so does no other."""

    def patch(teller: Any) -> None:
        from lmft_job.training.trainer import RecipeTrainer

        original, waits = RecipeTrainer.training_step, int(os.environ.get("RANK", 0)) == signalled

        def step(self: Any, *args: Any, **options: Any) -> Any:
            until = time.monotonic() + 200
            while waits and self.state.global_step >= at and not self.run.job.interrupt.requested:
                assert time.monotonic() < until, "nobody asked it to stop"
                time.sleep(0.01)
            return original(self, *args, **options)

        RecipeTrainer.training_step = step  # type: ignore[method-assign]

    return patch
