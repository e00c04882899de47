"""Compares the cache with whole lists: once before the first decision, then now and then.

A watch says what changes from its beginning on (:mod:`watching`); what was there before, and what was deleted while
there was none, only a list says. And a decision before all Jobs and Pods are known would take a running attempt for a
deleted one.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from lmft_api import PLURAL
from lmft_operator.cache import Cache
from lmft_operator.cluster import Cluster
from lmft_operator.errors import ClusterError
from lmft_operator.facts import Key

logger = logging.getLogger(__name__)
LEAST_SECONDS = 20.0
"""Between two comparisons."""
GATHER_SECONDS = 1.0
"""After a watch began anew; those of the other kinds mostly do so with it."""


async def resync(cluster: Cluster, cache: Cache, namespaces: Sequence[str], enqueue: Callable[[Key], None]) -> None:
    """Bring the cache in line with the API server. Raises :class:`ClusterError`."""
    everywhere: list[str | None] = [None]
    for namespace in namespaces or everywhere:
        # Children last: a Job listed before its run would count as nobody's.
        # What a list shows says nothing about the watch, so it does not count as seen there.
        runs, jobs = partial(cache.run_seen, watched=False), partial(cache.job_seen, watched=False)
        for kind, seen in ((PLURAL, runs), ("jobs", jobs), ("pods", cache.pod_seen)):
            uids: list[str] = []
            version = 0
            async for items, listed in cluster.pages(kind, namespace):
                version = listed
                cache.listed(kind, version)
                for item in items:
                    uids.append(item["metadata"]["uid"])
                    key = seen(item)
                    if key is not None:
                        enqueue(key)
                await asyncio.sleep(0)
            for key in cache.retain(kind, namespace, uids, version):
                enqueue(key)
    cache.prune()


async def resync_until_done(
    cluster: Cluster, cache: Cache, namespaces: Sequence[str], enqueue: Callable[[Key], None]
) -> None:
    """The first resync, however long the API server takes to answer."""
    delay = 0.5
    while True:
        try:
            await resync(cluster, cache, namespaces, enqueue)
        except ClusterError as problem:
            logger.warning("cannot list yet: %s", problem)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 15.0)
        else:
            return


async def resync_forever(
    cluster: Cluster,
    cache: Cache,
    namespaces: Sequence[str],
    enqueue: Callable[[Key], None],
    every: float,
    relisted: asyncio.Event,
) -> None:
    """A resync every so many seconds, and soon after a watch began anew; one that fails is made up for by the next."""
    while True:
        await asyncio.sleep(min(LEAST_SECONDS, every))
        with suppress(TimeoutError):
            await asyncio.wait_for(relisted.wait(), max(every - LEAST_SECONDS, 0.001))
            await asyncio.sleep(GATHER_SECONDS)
        relisted.clear()
        try:
            await resync(cluster, cache, namespaces, enqueue)
        except ClusterError as problem:
            logger.warning("resync failed: %s", problem)
