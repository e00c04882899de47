"""Keys of trackers: from a mounted Secret in a pod, from the environment on a laptop. None of them is ever shown."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

Keys = Callable[[], Mapping[str, str]]
"""Values by name, such as MLFLOW_TRACKING_TOKEN; read again at each call, for Secrets rotate."""


def keys_in(folder: Path | None, *, in_pod: bool) -> Keys:
    """The keys of a mounted Secret; where there is none, in a pod nothing, and on a laptop the environment."""

    def read() -> Mapping[str, str]:
        if folder is None:
            return {} if in_pod else os.environ
        return {path.name: path.read_text(errors="ignore") for path in folder.iterdir() if path.is_file()}

    return read
