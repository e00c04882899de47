"""What the processes of a pod need once: one of them does it, and the others find it done."""

import fcntl
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmft_job.attempt.context import RunContext
from lmft_job.distributed.member import FOUND
from lmft_job.errors import PeersError
from lmft_job.models.sources.source import SourceFolder
from lmft_job.sharding.choose import may_divide
from lmft_job.stages.fit.memory import device_of

_LOOK_SECONDS = 0.1
_RENDEZVOUS_SECONDS = 600.0


def once_in_pod(context: RunContext, name: str, fetch: Callable[[Path], SourceFolder]) -> SourceFolder:
    """What ``fetch`` puts into a folder; of a pod's processes the first fetches, and the others take the same.

    If it fails or is killed, the next of them tries. A file lock orders them, which ends with its process.

    Args:
        context: of the attempt.
        name: of the folder.
        fetch: called with a folder, which may hold what a killed process left.
    """
    if context.pod_folder is None:
        return fetch(context.folder / "sources" / name)
    folder = context.pod_folder / "sources" / name
    done = folder.with_name(f"{name}.json")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{name}.lock").open("w") as lock:
        with context.watchdog.paused():  # the one that fetches watches itself
            while not _taken(lock.fileno()):
                context.check()
                time.sleep(_LOOK_SECONDS)
        if done.exists():
            found = json.loads(done.read_text())
            return SourceFolder(Path(found["path"]), found["revision"])
        fetched = fetch(folder)
        whole = done.with_suffix(".new")
        whole.write_text(json.dumps({"path": str(fetched.path), "revision": fetched.revision}))
        whole.rename(done)
        return fetched


def first_loads(context: RunContext) -> bool:
    """Whether of a pod's processes the first one alone loads the model, which may be divided among them."""
    device = device_of(context)
    return may_divide(context.settings, context.world, None if device is None else device.memory)


def from_first(context: RunContext, name: str, find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the first process of a pod finds, which is JSON; the others wait for it.

    If the first one fails, these are ended with it, by the process that has started them.

    Args:
        context: of the attempt.
        name: of what is found.
        find: called in the first process alone.

    Raises:
        PeersError: the first one takes longer than the processes wait for each other.
    """
    if context.pod_folder is None:
        return find()
    path = context.pod_folder / FOUND / f"{name}.json"
    if context.world.leads_node:
        found = find()
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.with_suffix(".new")
        whole.write_text(json.dumps(found))
        whole.rename(path)
        return found
    until = time.monotonic() + rendezvous_seconds()
    with context.watchdog.paused():
        while not path.exists():
            context.check()
            if time.monotonic() > until:
                raise PeersError(f"rank {context.world.rank} waited for the first rank of its pod to find the {name}")
            time.sleep(_LOOK_SECONDS)
    said: dict[str, Any] = json.loads(path.read_text())
    return said


def rendezvous_seconds() -> float:
    """How long processes wait for each other before they begin."""
    return float(os.environ.get("LMFT_RENDEZVOUS_SECONDS") or _RENDEZVOUS_SECONDS)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
