"""Work queue of keys to reconcile: delays, back-off, one worker at a time for each key, tenants in turn.

A key added while it is being worked on is worked on once more afterwards; added several times while it waits, once.
Of several delays the shortest counts. The queue is also the timer: deadlines, time to live and staleness are delays.
Keys that are ready are taken tenant by tenant, so that a thousand slow ones of one keep no other waiting.
"""

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Keys that wait for work; for a single event loop, not thread-safe.

    Args:
        tenant: whose a key is; None makes no difference between them.
        base: seconds of the first back-off.
        most: seconds of the longest back-off.
    """

    def __init__(self, tenant: Callable[[K], Hashable] | None = None, *, base: float = 0.5, most: float = 60.0) -> None:
        self._tenant = tenant or (lambda key: None)
        self._base, self._most = base, most
        self._ready: dict[Hashable, deque[K]] = {}
        """By tenant, those whose turn comes next first; a tenant without ready keys is not there."""
        self._queued: set[K] = set()
        self._busy: set[K] = set()
        self._again: set[K] = set()
        self._later: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._count = 0
        self._wake = asyncio.Event()
        self._available = asyncio.Semaphore(0)

    def __len__(self) -> int:
        """Keys that are ready and wait for a worker."""
        return len(self._queued)

    @property
    def delayed(self) -> int:
        """Keys whose delay has not passed."""
        return len(self._due)

    def add(self, key: K, delay: float = 0.0) -> None:
        """Schedule a key, now or after ``delay`` seconds."""
        if delay > 0:
            due = asyncio.get_running_loop().time() + delay
            if due < self._due.get(key, float("inf")):
                self._due[key] = due
                self._count += 1
                heapq.heappush(self._later, (due, self._count, key))
                self._wake.set()
        elif key in self._busy:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.setdefault(self._tenant(key), deque()).append(key)
            self._available.release()

    async def run(self, work: Callable[[K], Awaitable[float | None]], workers: int) -> None:
        """Work on keys until cancelled.

        Args:
            work: handles one key; returns the seconds after which to call again, or None. It must log its own
                exceptions; the key is retried after a back-off that doubles with every failure in a row.
            workers: how many keys to work on at a time.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._clock(), name="queue clock")
            for number in range(workers):
                tasks.create_task(self._worker(work), name=f"queue worker {number}")

    async def _worker(self, work: Callable[[K], Awaitable[float | None]]) -> None:
        while True:
            await self._available.acquire()
            key = self._next()
            self._busy.add(key)
            # A look now replaces an earlier appointment: the look itself says when the next one is due.
            self._due.pop(key, None)
            try:
                delay = await work(key)
                self._failures.pop(key, None)
            except Exception:  # noqa: BLE001 - the work has logged it; the queue must survive any exception
                failures = self._failures[key] = self._failures.get(key, 0) + 1
                ceiling = min(self._most, self._base * 2.0 ** min(failures - 1, 30))
                delay = ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not security
            self._busy.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            elif delay is not None:
                self.add(key, max(delay, 0.001))

    def _next(self) -> K:
        tenant, keys = next(iter(self._ready.items()))
        key = keys.popleft()
        del self._ready[tenant]
        if keys:
            self._ready[tenant] = keys  # behind the others
        self._queued.discard(key)
        return key

    async def _clock(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            now = loop.time()
            while self._later and self._later[0][0] <= now:
                due, _, key = heapq.heappop(self._later)
                if self._due.get(key) == due:
                    del self._due[key]
                    self.add(key)
            timeout = self._later[0][0] - now if self._later else None
            try:
                await asyncio.wait_for(self._wake.wait(), timeout)
            except TimeoutError:
                continue
