"""A watch that begins anew does not say what was deleted meanwhile: whole lists do."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

from leaping import leaping

from lmft_operator import resync
from lmft_operator.cache import Cache
from lmft_operator.cluster import Cluster


class Lists:
    """An API server that has nothing, and counts how often it is asked for it."""

    def __init__(self) -> None:
        self.asked = 0

    async def pages(self, kind: str, namespace: str | None) -> AsyncIterator[tuple[list[Any], int]]:
        self.asked += kind == "pods"
        yield [], 1


async def asked_within(seconds: float, relisted: asyncio.Event) -> int:
    lists = Lists()
    forever = resync.resync_forever(cast(Cluster, lists), Cache(), (), lambda key: None, 1000.0, relisted)
    task = asyncio.create_task(forever)
    await asyncio.sleep(seconds)
    task.cancel()
    return lists.asked


@leaping
async def test_a_watch_that_began_anew_brings_one_comparison_soon() -> None:
    relisted = asyncio.Event()
    relisted.set()
    assert await asked_within(resync.LEAST_SECONDS - 1, relisted) == 0
    relisted.set()
    assert await asked_within(resync.LEAST_SECONDS + resync.GATHER_SECONDS + 1, relisted) == 1
    relisted.set()
    assert await asked_within(900, relisted) == 1


@leaping
async def test_without_one_the_next_comparison_waits_for_its_time() -> None:
    assert await asked_within(999, asyncio.Event()) == 0
    assert await asked_within(1001, asyncio.Event()) == 1
    assert await asked_within(2001, asyncio.Event()) == 2
