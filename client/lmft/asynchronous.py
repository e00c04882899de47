"""The same client for asyncio: requests run in threads, so that no loop waits for an answer."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from lmft.client import Client, outcome
from lmft.cluster.connection import Stop
from lmft.live import showing
from lmft.manifests import Manifest
from lmft.reports import RunReport
from lmft.runs import Event, Run, Runs

T = TypeVar("T")
_AHEAD = 1000
"""Items of a stream that are read before somebody takes them."""


class AsyncClient:
    """:class:`lmft.Client` with the same methods, to be awaited; see there for arguments and errors.

    ``watch`` and ``logs`` are asynchronous iterators; leaving one, or cancelling the task, ends its request too.
    Nothing is read, the kubeconfig included, before the first method is called or ``async with`` is entered.
    """

    def __init__(
        self, namespace: str | None = None, *, context: str | None = None, kubeconfig: str | Path | None = None
    ) -> None:
        self._make = lambda: Client(namespace, context=context, kubeconfig=kubeconfig)
        self._made: Client | None = None
        self._making = asyncio.Lock()

    async def _client(self) -> Client:
        async with self._making:
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
            return self._made

    async def close(self) -> None:
        """See Client."""
        if self._made is not None:
            await asyncio.to_thread(self._made.close)

    async def __aenter__(self) -> Self:
        await self._client()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def create(
        self,
        manifest: Manifest,
        *,
        name: str | None = None,
        namespace: str | None = None,
        validate: bool = True,
        dry_run: bool = False,
    ) -> Run:
        """See Client."""
        client = await self._client()
        return await asyncio.to_thread(
            client.create, manifest, name=name, namespace=namespace, validate=validate, dry_run=dry_run
        )

    async def list(self, namespace: str | None = None, *, selector: str = "", everywhere: bool = False) -> Runs:
        """See Client."""
        client = await self._client()
        return await asyncio.to_thread(client.list, namespace, selector=selector, everywhere=everywhere)

    async def get(self, run: str | Run, *, namespace: str | None = None) -> Run:
        """See Client."""
        return await asyncio.to_thread((await self._client()).get, run, namespace=namespace)

    async def watch(
        self,
        run: str | Run,
        *,
        namespace: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - ends the iteration, and not by an error
        on_lost: Callable[[str], None] | None = None,
    ) -> AsyncIterator[Run]:
        """See Client; ``on_lost`` is called in another thread."""
        client = await self._client()
        until = None if timeout is None else time.monotonic() + timeout
        async for seen in streamed(lambda stop: client.follow(run, namespace, until, on_lost, stop)):
            yield seen

    async def wait(
        self,
        run: str | Run,
        *,
        namespace: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the error has the run
        check: bool = True,
        progress: bool | None = None,
        on_lost: Callable[[str], None] | None = None,
    ) -> Run:
        """See Client; ``on_lost`` is called in another thread."""
        last = None
        with showing(progress) as show:
            async for last in self.watch(run, namespace=namespace, timeout=timeout, on_lost=on_lost):
                show(last)
        return outcome(last or await self.get(run, namespace=namespace), timeout or 0.0, check=check)

    async def suspend(self, run: str | Run, *, namespace: str | None = None) -> Run:
        """See Client."""
        return await asyncio.to_thread((await self._client()).suspend, run, namespace=namespace)

    async def resume(self, run: str | Run, *, namespace: str | None = None) -> Run:
        """See Client."""
        return await asyncio.to_thread((await self._client()).resume, run, namespace=namespace)

    async def delete(self, run: str | Run, *, namespace: str | None = None) -> None:
        """See Client."""
        await asyncio.to_thread((await self._client()).delete, run, namespace=namespace)

    async def logs(
        self, run: str | Run, *, namespace: str | None = None, follow: bool = False, tail: int | None = None
    ) -> AsyncIterator[str]:
        """See Client."""
        client = await self._client()
        async for line in streamed(lambda stop: client.log(run, namespace, follow=follow, tail=tail, stop=stop)):
            yield line

    async def events(self, run: str | Run, *, namespace: str | None = None) -> Sequence[Event]:
        """See Client."""
        return await asyncio.to_thread((await self._client()).events, run, namespace=namespace)

    async def report(self, run: str | Run, *, namespace: str | None = None) -> RunReport:
        """See Client."""
        return await asyncio.to_thread((await self._client()).report, run, namespace=namespace)


async def streamed(open_stream: Callable[[Stop], Iterator[T]]) -> AsyncIterator[T]:
    """What a blocking iterator gives, read in a thread of its own, which ends when nobody asks any more."""
    loop, stop, room = asyncio.get_running_loop(), Stop(), threading.Semaphore(_AHEAD)
    queue: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

    def put(kind: str, what: Any = None) -> None:
        if not stop.wanted:
            loop.call_soon_threadsafe(queue.put_nowait, (kind, what))

    def work() -> None:
        try:
            for item in open_stream(stop):
                room.acquire()
                if stop.wanted:
                    return
                put("item", item)
            put("end")
        except Exception as error:  # noqa: BLE001 - raised where the items are asked for
            put("error", error)

    threading.Thread(target=work, name="lmft-stream", daemon=True).start()
    try:
        while True:
            kind, what = await queue.get()
            room.release()
            if kind == "error":
                raise what
            if kind == "end":
                return
            yield what
    finally:
        stop.set()
        room.release()
