"""Progress of an attempt, written to storage periodically: the next attempt can report how many steps were lost.

It also records that a later attempt has begun; an earlier one that sees this stops writing what attempts share.
"""

import json
import logging
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Self

from typing_extensions import override

from lmft_api.wire.layout import ATTEMPTS_FOLDER, attempt_folder, attempt_name, short_uid
from lmft_job.errors import InterruptedRunError, JobError
from lmft_job.observers.background import Background
from lmft_job.storage import Store
from lmft_job.storage.notes import read_note

log = logging.getLogger(__name__)

_FOLDER = f"{ATTEMPTS_FOLDER}/"
_NAME = re.compile(rf"{_FOLDER}attempt-([0-9]{{1,9}})(?:-([0-9A-Za-z]+))?\.json")
_PAUSE_SECONDS = 5.0


@dataclass(frozen=True)
class Begun:
    """A pod that has begun an attempt.

    Two pods may have the same number: a queue preempted and readmitted the Job, or the cluster's database was restored
    to an older snapshot. The one that began later continues.

    Attributes:
        number: attempt number, from 1.
        pod: first 8 of the pod's UID; empty on a laptop, and in what earlier versions wrote.
        before: pods that began earlier with the same number; known for our own attempt only.
    """

    number: int
    pod: str = ""
    before: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Storage key of its note."""
        return f"{_FOLDER}{attempt_name(self.number, self.pod)}.json"

    @property
    def folder(self) -> str:
        """Folder of its checkpoints."""
        return attempt_folder(self.number, self.pod)

    def note(self, step: int) -> bytes:
        """Content of its note."""
        return json.dumps({"attempt": self.number, "step": step, "before": self.before}).encode()


def begun(store: Store) -> list[Begun]:
    """All pods that have begun an attempt of the run."""
    found = (_NAME.fullmatch(item.key) for item in store.list(_FOLDER))
    return [Begun(int(name[1]), name[2] or "") for name in found if name]


def known_steps(store: Store, attempts: Iterable[Begun]) -> dict[int, int]:
    """Last known step of each attempt, by number."""
    steps: dict[int, int] = {}
    for attempt in attempts:
        step = read_note(store, attempt.key, lambda note: int(note["step"]))
        if step is not None:
            steps[attempt.number] = max(step, steps.get(attempt.number, 0))
    return steps


def place(store: Store, attempt: int, pod: str, others: Iterable[Begun]) -> Begun:
    """Our own entry among those that have begun; an earlier process of the same pod may have written it already."""
    ours = Begun(attempt, short_uid(pod))
    noted = _noted_before(store, ours)
    if noted is None:
        noted = tuple(sorted(other.pod for other in others if other.number == attempt and other.pod != ours.pod))
    return replace(ours, before=noted)


def begin(store: Store, ours: Begun) -> None:
    """Record that this attempt has begun; steps that are already recorded stay."""
    store.put_if_absent(ours.key, ours.note(0))


def _noted_before(store: Store, attempt: Begun) -> tuple[str, ...] | None:
    return read_note(store, attempt.key, lambda note: tuple(map(str, note.get("before") or ())))


class Fence:
    """Ends an attempt once a later one has begun: only the later one may write shared files.

    Args:
        store: rooted at the run's folder.
        ours: our own attempt.
        pause: seconds for which an answer of the storage is reused.
        clock: returns seconds; replaced in tests.
    """

    def __init__(
        self, store: Store, ours: Begun, pause: float = _PAUSE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._ours = ours
        self._pause = pause
        self._clock = clock
        self._looked: float | None = None

    def check(self) -> None:
        """Ask storage, unless it was asked within ``pause``; for loops.

        Raises:
            InterruptedRunError: a later attempt has begun.
        """
        if self._looked is None or self._clock() - self._looked >= self._pause:
            self.require()

    def require(self) -> None:
        """Ask storage now.

        Raises:
            InterruptedRunError: a later attempt has begun.
        """
        self._looked = self._clock()
        found = begun(self._store)
        newest = max((other.number for other in found), default=0)
        if newest > self._ours.number:
            raise InterruptedRunError(
                f"attempt {newest} of this run has begun; attempt {self._ours.number} leaves model and report to it"
            )
        if any(other.number == self._ours.number and self._later(other) for other in found):
            raise InterruptedRunError(
                f"another pod has begun as attempt {self._ours.number} of this run; this one leaves model and report "
                "to it"
            )

    def _later(self, other: Begun) -> bool:
        """Whether a pod with our number began after us; if both began at once, both pods agree on which is later."""
        if other.pod == self._ours.pod or other.pod in self._ours.before:
            return False
        return self._ours.pod in (_noted_before(self._store, other) or ()) or other.pod > self._ours.pod


class Journal(Background):
    """Writes the attempt's step from a thread, so that slow or unreachable storage does not delay the run."""

    def __init__(self, store: Store, ours: Begun, pause: float = _PAUSE_SECONDS) -> None:
        super().__init__("journal", 1.0)
        self.step = 0
        self._store = store
        self._ours = ours
        self._pause = pause
        self._written = -1

    @override
    def __enter__(self) -> Self:
        self.write()
        return super().__enter__()

    @override
    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            try:
                self.write()
            except JobError as error:
                # Only the count of lost steps depends on it; checkpoints report storage failures themselves.
                log.info("the step could not be noted: %s", error)

    def write(self) -> None:
        """Write the step now, unless it is already stored."""
        step = self.step
        if step != self._written:
            self._store.put_bytes(self._ours.key, self._ours.note(step))
            self._written = step
