"""An event loop whose clock leaps to the next timer: what takes minutes takes no time, and takes it exactly."""

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable
from typing import Any


class LeapingLoop(asyncio.SelectorEventLoop):
    """Begins at 0 s; time passes only while nothing can be done."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_LeapingSelector(self))

    def time(self) -> float:
        return self.now


class _LeapingSelector(selectors.DefaultSelector):
    def __init__(self, loop: LeapingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout:
            self._loop.now += timeout
        return ready


def leaping(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test on such a loop."""

    @functools.wraps(test)
    def run(*given: Any, **named: Any) -> None:
        async def body() -> None:
            await test(*given, **named)

        with asyncio.Runner(loop_factory=LeapingLoop) as runner:
            runner.run(body())

    return run
