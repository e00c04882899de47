"""Tells of downloads from the hub, by what its client takes for a progress bar."""

import io
from typing import Any

from lmft_job.process.transfers import Told, Transfer


def bar_class(name: str, told: Told) -> type[Any]:
    """A class for ``tqdm_class`` of ``snapshot_download``, which draws nothing.

    The client keeps a bar of files, and two of bytes, received and written, of which the further one counts.
    """
    from tqdm import tqdm  # type: ignore[import-untyped]

    seen: dict[int, tuple[int, int]] = {}

    class Bar(tqdm):  # type: ignore[misc]
        monitor_interval = 0

        def __init__(self, *args: Any, **options: Any) -> None:
            self.counts_bytes = options.get("unit") == "B"
            super().__init__(*args, **options | {"file": io.StringIO(), "disable": False})

        def display(self, *args: Any, **options: Any) -> bool:
            if self.counts_bytes:
                seen[id(self)] = (int(self.n), int(self.total or 0))
                done, total = (max(values) for values in zip(*seen.values(), strict=True))
                if done:
                    told(Transfer(name, done, total or None))
            return True

    return Bar
