"""What the processes of a pod need once: one of them does it, and the others find it done."""

import fcntl
import json
import time
from collections.abc import Callable
from pathlib import Path

from lmft_job.attempt.context import RunContext
from lmft_job.models.sources.source import SourceFolder

_LOOK_SECONDS = 0.1


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


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
