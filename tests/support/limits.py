"""A limit in time for what may hang."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def within_seconds(limit: float) -> Iterator[None]:
    """Raises TimeoutError rather than hang. Again at the end: a reader may take the first for an error of its own."""
    late: list[TimeoutError] = []

    def too_long(number: int, frame: object) -> None:
        late.append(TimeoutError(f"it did not end within {limit:g} s"))
        raise late[0]

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if late:
        raise late[0]
