"""Whether the operator is alive: pure decisions on a few clocks and tasks."""

import asyncio
from collections.abc import Callable, Iterable

WATCHED = ("lmfinetunes", "jobs", "pods")


class Health:
    """State behind the liveness and readiness probes."""

    def __init__(self, stale_seconds: float) -> None:
        self._stale = stale_seconds
        self.synced = False
        self.standby: Callable[[], str | None] | None = None
        """While another operator leads: what this one lacks before it could take over."""
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def live(self, unseen: Iterable[tuple[int, float]], last_answer: float) -> str | None:
        """What is dead, or None.

        Args:
            unseen: writes that the watch has not shown yet, as version and monotonic time.
            last_answer: monotonic time of the API server's last response. A server that is down is not our failure:
                only what it confirmed and then did not show in the watch counts.
        """
        for name, task in self.tasks.items():
            if task.done():
                return f"{name} has stopped"
        oldest = min((since for _, since in unseen), default=None)
        if oldest is not None and last_answer - oldest > self._stale:
            return f"the watch has shown nothing of a write for {last_answer - oldest:.0f} s"
        return None

    def ready(self) -> str | None:
        """What is missing before the operator can work, or None."""
        if self.standby is not None:
            return self.standby()
        if not self.synced:
            return "the first list is not complete"
        watching = [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("watcher for ")]
        missing = [kind for kind in WATCHED if not any(name.startswith(f"watcher for {kind}.") for name in watching)]
        return f"not watching {', '.join(missing)} yet" if missing else None
