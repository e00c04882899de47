"""Random states in checkpoints: one of each process, so that the same number of them resumes bit-identically."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import set_seed
from transformers.trainer_pt_utils import safe_globals

from lmft_job.distributed.group import Group
from lmft_job.distributed.world import World

_ALL = "rng_state*.pth"


def draw_as_trainer_does() -> None:
    """One draw from the global generator, as a plain Trainer's evaluation makes for its DataLoader's base seed.

    Without it the dropout masks after the first evaluation would differ from those of the plain recipe.
    """
    torch.empty((), dtype=torch.int64).random_()


def state_file(folder: Path, world: World) -> Path:
    """Where a checkpoint holds the random state of a process, by Trainer's names."""
    return folder / ("rng_state.pth" if world.alone else f"rng_state_{world.rank}.pth")


def draw_in_checkpoint(folder: Path, world: World) -> None:
    """The draw of :func:`draw_as_trainer_does`, in the random state that a checkpoint contains."""
    path = state_file(folder, world)
    if not path.is_file():
        return
    with safe_globals():  # type: ignore[no-untyped-call]
        states = torch.load(path, weights_only=True)
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(states["cpu"])
        draw_as_trainer_does()
        states["cpu"] = torch.random.get_rng_state()
    torch.save(states, path)


def collect_states(folder: Path, group: Group) -> None:
    """Put the random states of all processes into the checkpoint's folder of rank 0."""
    if group.world.alone:
        return
    states = group.gather_bytes(state_file(folder, group.world).read_bytes())
    if group.world.main:
        for rank, state in enumerate(states):
            (folder / f"rng_state_{rank}.pth").write_bytes(state)


def restore_state(folder: Path, world: World, seed: int, load: Callable[[], None]) -> None:
    """Continue with the random state of a checkpoint; another number of processes begins with states of its own.

    Args:
        folder: the checkpoint.
        world: which process this is.
        seed: of the run.
        load: reads :func:`state_file`.
    """
    stored = sorted(folder.glob(_ALL))
    if len(stored) == world.size and state_file(folder, world).is_file():
        load()
    elif stored:
        step = json.loads((folder / "trainer_state.json").read_text())["global_step"]
        drawn = hashlib.sha256(f"{seed} {step} {world.rank}".encode()).digest()
        set_seed(int.from_bytes(drawn[:4], "big"))
