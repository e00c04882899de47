"""Bytes on their way to this machine, for people who wait for them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Transfer:
    """What has arrived of something.

    Attributes:
        name: what it is, for people.
        done: bytes that have arrived.
        total: bytes in all, as far as they are known; None if they are not.
        ended: whether no more is to come.
    """

    name: str
    done: int
    total: int | None = None
    ended: bool = False


Told = Callable[[Transfer], None]
"""Is told of a transfer now and then, in any thread; must be fast."""


def silent(transfer: Transfer) -> None:
    """Tells nobody."""


@contextmanager
def arriving(name: str, folder: Path, told: Told, total: int | None = None) -> Iterator[None]:
    """Tells meanwhile how much has been written below a folder, which may not be there yet."""
    if told is silent:
        yield
        return
    before, stop = _written(folder), threading.Event()

    def watch() -> None:
        while not stop.wait(POLL_SECONDS):
            told(Transfer(name, max(0, _written(folder) - before), total))

    thread = threading.Thread(target=watch, name="transfer", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        told(Transfer(name, max(0, _written(folder) - before), total, ended=True))


def _written(folder: Path) -> int:
    """Bytes on the disk: a file whose end has arrived first is larger than what is there."""
    written = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # a temporary file that has got its name meanwhile
            status = path.lstat()
            written += min(status.st_size, status.st_blocks * 512)
    return written
