"""kopf's watches, made safe and cheap: what they list and stream is read by our own parser.

kopf parses whatever it receives, and what cannot be parsed ends the process; and it begins each watch with a list of
all objects, which :mod:`resync` lists anyway. So for our kinds a watch begins at the list's version without objects,
and a comparison with full lists follows. A watch that is refused, as in a deleted namespace, restarts when it can. The
functions replaced here are internal to kopf: a test fails when a new version of kopf changes them.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

from kopf._cogs.clients import api, errors, fetching
from kopf._cogs.clients import watching as streams

from lmft_operator.cluster.client import Cluster
from lmft_operator.cluster.errors import ClusterError, ForbiddenError
from lmft_operator.cluster.reading import read_event
from lmft_operator.watch.resync import KINDS

logger = logging.getLogger(__name__)
BEGIN_AGAIN = {"type": "ERROR", "object": {"code": 410}}
"""What an API server sends when a watch is too old to continue."""
LISTED = "events"
"""Kind that is listed only when a watch begins."""


class Watches:
    """How kopf's watches begin.

    Args:
        cluster: used for listing.
        begun: called when a watch begins, for the first time or again: what existed before it has to be listed.
    """

    def __init__(self, cluster: Cluster, begun: Callable[[], None]) -> None:
        self._cluster, self._begun = cluster, begun
        self._kinds: set[str] = set()
        self._all = asyncio.Event()
        self._original, self._stream = fetching.fetch_objs, streams.watch_objs

    def install(self) -> None:
        """Replace kopf's functions for listing and streaming."""
        fetching.fetch_objs = self._fetch
        streams.watch_objs = self._watch
        vars(api)["json"] = SimpleNamespace(loads=read_event)

    async def wait(self, seconds: float) -> None:
        """Wait until a watch of each kind has begun, at most ``seconds``: without the right, one may never begin."""
        try:
            await asyncio.wait_for(self._all.wait(), seconds)
        except TimeoutError:
            missing = ", ".join(sorted({*KINDS, LISTED} - self._kinds))
            logger.warning("no watch of %s has started yet; does the operator have the permission?", missing)

    async def _fetch(self, *, resource: Any, namespace: Any, **others: Any) -> AsyncIterator[tuple[Any, Any]]:
        kind = resource.plural
        if kind not in (*KINDS, LISTED):
            async for page in self._original(resource=resource, namespace=namespace, **others):
                yield page
            return
        if kind == LISTED:
            async for items, version in self._retried_pages(namespace):
                yield items, str(version)
        else:
            yield [], str(await self._retried_version(kind, namespace))
            self._begun()
        self._kinds.add(kind)
        if self._kinds >= {*KINDS, LISTED}:
            self._all.set()

    async def _watch(self, *, resource: Any, **others: Any) -> AsyncIterator[Any]:
        """A stream; one that is refused because its namespace or definition does not exist restarts when they do."""
        try:
            async for event in self._stream(resource=resource, **others):
                yield event
        except (errors.APIForbiddenError, errors.APINotFoundError):
            yield BEGIN_AGAIN

    async def _retried_version(self, kind: str, namespace: str | None) -> int:
        delay = 0.5
        while True:
            try:
                return await self._cluster.version(kind, namespace)
            except ClusterError as problem:
                delay = await _pause(problem, delay)

    async def _retried_pages(self, namespace: str | None) -> AsyncIterator[tuple[list[Any], int]]:
        delay = 0.5
        while True:
            try:
                async for page in self._cluster.pages(LISTED, namespace):
                    yield page
            except ClusterError as problem:
                delay = await _pause(problem, delay)
            else:
                return


async def _pause(problem: ClusterError, delay: float) -> float:
    """Wait before the next try; a watch is retried without end."""
    # A deleted namespace refuses as long as it is gone: the comparison of lists reports that once.
    refused = isinstance(problem, ForbiddenError)
    logger.log(logging.DEBUG if refused else logging.WARNING, "a watch cannot start yet: %s", problem)
    await asyncio.sleep(delay)
    return min(2 * delay, 15.0)
