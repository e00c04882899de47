"""How far an attempt came, told to storage now and then: the next one can say how many steps were lost.

That a later attempt has begun is told here too, and whoever sees it leaves alone what all attempts of a run share.
"""

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from types import TracebackType

from lmft_api.wire.layout import ATTEMPTS_FOLDER, attempt_folder, attempt_name, short_uid
from lmft_job.errors import InterruptedRunError, JobError
from lmft_job.storage import Store
from lmft_job.storage.notes import read_note

log = logging.getLogger(__name__)

_FOLDER = f"{ATTEMPTS_FOLDER}/"
_NAME = re.compile(rf"{_FOLDER}attempt-([0-9]{{1,9}})(?:-([0-9A-Za-z]+))?\.json")
_PAUSE_SECONDS = 5.0


@dataclass(frozen=True)
class Begun:
    """A pod that has begun an attempt.

    Two pods may have one number: a queue took the place away and gave it back, or the cluster's database was restored
    to an older snapshot. The one that began later continues.

    Attributes:
        number: of the attempt.
        pod: first 8 of the pod's UID; empty on a laptop, and in what earlier versions wrote.
        before: pods that had begun with the same number before; known of our own alone.
    """

    number: int
    pod: str = ""
    before: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Of its note."""
        return f"{_FOLDER}{attempt_name(self.number, self.pod)}.json"

    @property
    def folder(self) -> str:
        """Where its checkpoints lie."""
        return attempt_folder(self.number, self.pod)

    def note(self, step: int) -> bytes:
        """What its note says."""
        return json.dumps({"attempt": self.number, "step": step, "before": self.before}).encode()


def begun(store: Store) -> list[Begun]:
    """All that have begun an attempt of the run."""
    found = (_NAME.fullmatch(item.key) for item in store.list(_FOLDER))
    return [Begun(int(name[1]), name[2] or "") for name in found if name]


def known_steps(store: Store, attempts: Iterable[Begun]) -> dict[int, int]:
    """Newest known step of each attempt, by number."""
    steps: dict[int, int] = {}
    for attempt in attempts:
        step = read_note(store, attempt.key, lambda note: int(note["step"]))
        if step is not None:
            steps[attempt.number] = max(step, steps.get(attempt.number, 0))
    return steps


def place(store: Store, attempt: int, pod: str, others: Iterable[Begun]) -> Begun:
    """Our own place among those that have begun; a process that the same pod started before has noted it already."""
    ours = Begun(attempt, short_uid(pod))
    noted = _noted_before(store, ours)
    if noted is None:
        noted = tuple(sorted(other.pod for other in others if other.number == attempt and other.pod != ours.pod))
    return replace(ours, before=noted)


def begin(store: Store, ours: Begun) -> None:
    """Let it be seen that this attempt has begun; what is known of its steps already stays."""
    store.put_if_absent(ours.key, ours.note(0))


def _noted_before(store: Store, attempt: Begun) -> tuple[str, ...] | None:
    return read_note(store, attempt.key, lambda note: tuple(map(str, note.get("before") or ())))


class Fence:
    """Ends an attempt once a later one has begun: what both would write is the later one's.

    Args:
        store: rooted at the run's folder.
        ours: our own.
        pause: seconds for which an answer of the storage holds.
        clock: seconds; another one in tests.
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
        """Ask storage, unless it was asked just now; for loops.

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
        """Whether a pod with our number began after us; of two that began at once, one counts as later for both."""
        if other.pod == self._ours.pod or other.pod in self._ours.before:
            return False
        return self._ours.pod in (_noted_before(self._store, other) or ()) or other.pod > self._ours.pod


class Journal:
    """Writes the attempt's step from a thread; a storage that is slow or away costs the run nothing."""

    def __init__(self, store: Store, ours: Begun, pause: float = _PAUSE_SECONDS) -> None:
        self.step = 0
        self._store = store
        self._ours = ours
        self._pause = pause
        self._written = -1
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="journal", daemon=True)

    def __enter__(self) -> "Journal":
        self.write()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=1.0)

    def _keep(self) -> None:
        while not self._stop.wait(self._pause):
            try:
                self.write()
            except JobError as error:
                # Only the count of lost steps depends on it; checkpoints tell people of their own troubles.
                log.info("the step could not be noted: %s", error)

    def write(self) -> None:
        """Tell storage now, unless it knows."""
        step = self.step
        if step != self._written:
            self._store.put_bytes(self._ours.key, self._ours.note(step))
            self._written = step
