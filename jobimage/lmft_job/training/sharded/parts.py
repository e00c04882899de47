"""What each process stores of a checkpoint of divided weights."""

import shutil
import uuid
from pathlib import Path
from typing import Any

from lmft_job.adapters.state import restore, save
from lmft_job.distributed.group import Group
from lmft_job.sharding.divide import share_of_model, trains_divided
from lmft_job.sharding.files import FOLDER


def stores_weights(model: Any, group: Group) -> bool:
    """Whether this process stores trained weights: all of them, or its part."""
    if trains_divided(model):
        return share_of_model(model).writes
    return group.world.main


def keep_best(model: Any, kept: Path, group: Group) -> None:
    """Keep the current weights as the best so far, on this process's disk: all of them, or its part."""
    if trains_divided(model) or group.world.main:
        shutil.rmtree(kept, ignore_errors=True)  # an earlier attempt may have kept them in another form
        save(model, kept)


def common_folder(model: Any, group: Group) -> str:
    """Name of the folder that all processes put their parts of a checkpoint into; empty if one process has all."""
    return group.from_main(lambda: uuid.uuid4().hex) if trains_divided(model) else ""


def adopt_best(model: Any, stored: Path, kept: Path) -> None:
    """Take the best weights so far from a checkpoint: this process's part, however many processes stored them.

    Args:
        model: its weights change, where they are divided.
        stored: in the checkpoint.
        kept: where this process keeps them.
    """
    if trains_divided(model):
        restore(model, stored)
        save(model, kept)
    else:
        shutil.copytree(stored, kept, dirs_exist_ok=True)


def keep_part(folder: Path) -> None:
    """Remove what rank 0 stores of a checkpoint: everything but this process's part."""
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
        elif path.name != FOLDER:
            shutil.rmtree(path)
