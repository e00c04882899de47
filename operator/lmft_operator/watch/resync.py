"""Compares the cache with full lists: once before the first decision, then periodically.

A watch shows what changes after it began (:mod:`streams`); what existed before, and what was deleted while there was
none, only a list shows. And a decision before all Jobs and Pods are known would take a running attempt for a
deleted one.
"""

import asyncio
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from lmft_api import PLURAL
from lmft_operator.cluster.client import Cluster
from lmft_operator.cluster.errors import ClusterError, ForbiddenError
from lmft_operator.domain.facts import Key
from lmft_operator.watch.cache import Cache
from lmft_operator.watch.namespaces import Served

logger = logging.getLogger(__name__)
KINDS = (PLURAL, "jobs", "pods")
"""Kinds whose full lists are compared with the cache."""
LEAST_SECONDS = 20.0
"""Least seconds between two comparisons."""
GATHER_SECONDS = 1.0
"""Seconds to wait after a watch restarted; watches of the other kinds mostly restart with it."""


async def resync(cluster: Cluster, cache: Cache, served: Served, enqueue: Callable[[Key], None]) -> None:
    """Make the cache match the API server, one namespace after the other.

    Raises:
        ClusterError: something could not be listed; the rest was. A namespace that does not exist is not an error.
    """
    everywhere: list[str | None] = [None]
    failed: ClusterError | None = None
    for namespace in served.names or everywhere:
        try:
            keys = await _compared(cluster, cache, namespace)
        except ForbiddenError as problem:
            if namespace is None:
                raise
            served.refused(namespace, str(problem))
            for kind in KINDS:
                cache.retain(kind, namespace, (), sys.maxsize)
            continue
        except ClusterError as problem:
            failed = problem
            continue
        if namespace is not None and served.listed(namespace):
            keys |= {key for key in cache.runs if key.namespace == namespace}
        for key in keys:
            enqueue(key)
    cache.prune()
    if failed is not None:
        raise failed


async def _compared(cluster: Cluster, cache: Cache, namespace: str | None) -> set[Key]:
    """Compare one namespace, or all; returns the runs to look at, once all their children are known."""
    # Children last: a Job listed before its run would count as belonging to no run.
    # A list says nothing about the watch, so its objects do not count as shown by the watch.
    sinks: list[Callable[[Any], Key | None]] = [
        partial(cache.run_seen, watched=False),
        partial(cache.job_seen, watched=False),
        cache.pod_seen,
    ]
    keys = set[Key]()
    for kind, seen in zip(KINDS, sinks, strict=True):
        uids: list[str] = []
        version, before = 0, cache.highest_listed(kind)
        async for items, listed in cluster.pages(kind, namespace):
            version = listed
            cache.listed(kind, version, before)
            for item in items:
                uids.append(item["metadata"]["uid"])
                if (key := seen(item)) is not None:
                    keys.add(key)
            await asyncio.sleep(0)
        keys |= cache.retain(kind, namespace, uids, version)
    return keys


async def resync_until_done(cluster: Cluster, cache: Cache, served: Served, enqueue: Callable[[Key], None]) -> None:
    """The first resync, retried until the API server answers."""
    delay = 0.5
    while True:
        try:
            await resync(cluster, cache, served, enqueue)
        except ClusterError as problem:
            logger.warning("cannot list yet: %s", problem)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 15.0)
        else:
            return


async def resync_forever(
    cluster: Cluster,
    cache: Cache,
    served: Served,
    enqueue: Callable[[Key], None],
    every: float,
    relisted: asyncio.Event,
) -> None:
    """A resync every ``every`` seconds, and soon after a watch restarted; after a failure the next one catches up."""
    while True:
        await asyncio.sleep(min(LEAST_SECONDS, every))
        with suppress(TimeoutError):
            await asyncio.wait_for(relisted.wait(), max(every - LEAST_SECONDS, 0.001))
            await asyncio.sleep(GATHER_SECONDS)
        relisted.clear()
        try:
            await resync(cluster, cache, served, enqueue)
        except ClusterError as problem:
            logger.warning("resync failed: %s", problem)
