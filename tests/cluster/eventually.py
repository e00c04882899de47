"""Waiting for what a cluster does in its own time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(look: Callable[[], T | None], what: str, seconds: float = 180) -> T:
    """What ``look`` gives once it gives something.

    The time is for a machine that has other things to do, and for controllers whose calls were refused while an API
    server was away: they double their wait after each, up to a minute.
    """
    until = time.monotonic() + seconds
    while True:
        if found := look():
            return found
        if time.monotonic() > until:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        time.sleep(0.1)
