"""How far an attempt came, told to storage now and then: the next one can say how many steps were lost."""

import json
import threading
from types import TracebackType

from lmft_job.errors import JobError
from lmft_job.notes import read_note
from lmft_job.storage import Store

_FOLDER = "attempts/"
_PAUSE_SECONDS = 5.0


def known_attempts(store: Store) -> dict[int, int]:
    """Newest known step of each attempt so far, by number."""
    attempts = {}
    for item in store.list(_FOLDER):
        body = read_note(store, item.key)
        if body is not None:
            attempts[int(body["attempt"])] = int(body["step"])
    return attempts


class Journal:
    """Writes the attempt's step from a thread; a storage that is slow or away costs the run nothing."""

    def __init__(self, store: Store, attempt: int, pause: float = _PAUSE_SECONDS) -> None:
        self.step = 0
        self._store = store
        self._attempt = attempt
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
                # Only the count of lost steps depends on it; checkpoints report their own troubles.
                self._last_trouble = str(error)

    def write(self) -> None:
        """Tell storage now, unless it knows."""
        step = self.step
        if step != self._written:
            body = json.dumps({"attempt": self._attempt, "step": step}).encode()
            self._store.put_bytes(f"{_FOLDER}attempt-{self._attempt:04d}.json", body)
            self._written = step
