"""A watch that begins anew does not say what was deleted meanwhile: whole lists do."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from support.leaping import leaping

from lmft_operator.cluster.client import Cluster
from lmft_operator.cluster.errors import ClusterError, ForbiddenError, RestoredError
from lmft_operator.domain.facts import Key
from lmft_operator.watch import resync
from lmft_operator.watch.cache import Cache
from lmft_operator.watch.namespaces import Served


class Lists:
    """An API server that has nothing, and counts how often it is asked for it."""

    def __init__(self) -> None:
        self.asked = 0

    async def pages(self, kind: str, namespace: str | None) -> AsyncIterator[tuple[list[Any], int]]:
        self.asked += kind == "pods"
        yield [], 1


async def asked_within(seconds: float, relisted: asyncio.Event) -> int:
    lists = Lists()
    forever = resync.resync_forever(cast(Cluster, lists), Cache(), Served(()), lambda key: None, 1000.0, relisted)
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


class Namespaces:
    """An API server with runs in some namespaces, and errors in others."""

    def __init__(self, **answers: list[Any] | ClusterError) -> None:
        self.answers = answers

    async def pages(self, kind: str, namespace: str | None) -> AsyncIterator[tuple[list[Any], int]]:
        answer = self.answers[str(namespace)]
        if isinstance(answer, ClusterError):
            raise answer
        yield answer if kind == "lmfinetunes" else [], 7


def a_run(namespace: str, name: str) -> dict[str, Any]:
    metadata = {"namespace": namespace, "name": name, "uid": f"{namespace}-{name}", "resourceVersion": "5",
                "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"}  # fmt: skip
    return {"metadata": metadata, "spec": {}}


async def test_a_namespace_that_is_away_is_forgotten_and_the_others_are_compared() -> None:
    cache, served, looked = Cache(), Served(["a", "b"]), list[Key]()
    away = ForbiddenError(403, "lmfinetunes is forbidden")
    server = Namespaces(a=away, b=[a_run("b", "one")])

    async def compare() -> list[Key]:
        looked.clear()
        await resync.resync(cast(Cluster, server), cache, served, looked.append)
        return looked

    assert await compare() == [Key("b", "one")]
    assert (served.knows("a"), served.knows("b")) == (False, True)
    # The watch may show a run of a namespace that has come back before its Jobs are known: it is not decided on yet.
    cache.run_seen(a_run("a", "one"))
    assert not served.knows("a")
    server.answers["a"] = [a_run("a", "one"), a_run("a", "two")]
    assert {key.name for key in await compare() if key.namespace == "a"} == {"one", "two"}
    assert served.knows("a")
    server.answers["b"] = away
    await compare()
    assert [key.namespace for key in cache.runs] == ["a", "a"]
    assert not served.knows("b")


async def test_a_namespace_that_cannot_be_listed_for_another_reason_keeps_what_is_known_of_it() -> None:
    cache, served, looked = Cache(), Served(["a", "b"]), list[Key]()
    server = Namespaces(a=[a_run("a", "one")], b=[])
    await resync.resync(cast(Cluster, server), cache, served, looked.append)
    server.answers |= {"a": ClusterError(503, "no answer"), "b": [a_run("b", "one")]}
    with pytest.raises(ClusterError, match="no answer"):
        await resync.resync(cast(Cluster, server), cache, served, looked.append)
    assert served.knows("a")
    assert {key.namespace for key in cache.runs} == {"a", "b"}


async def test_no_right_in_the_whole_cluster_is_an_error() -> None:
    server = Namespaces(**{"None": ForbiddenError(403, "forbidden")})
    with pytest.raises(ForbiddenError):
        await resync.resync(cast(Cluster, server), Cache(), Served(()), lambda key: None)


class Slow:
    """An API server whose lists of Jobs come in two pages; the second of the first list comes when it is let go."""

    def __init__(self) -> None:
        self.version = 2413
        self.held, self.go = asyncio.Event(), asyncio.Event()

    async def pages(self, kind: str, namespace: str | None) -> AsyncIterator[tuple[list[Any], int]]:
        version, first = self.version, not self.held.is_set()
        yield [], version
        if kind == "jobs" and first:
            self.held.set()
            await self.go.wait()
        yield [], version


async def test_a_slow_list_that_another_one_overtakes_is_no_restored_database() -> None:
    # given a list of many pages, and another one that begins later and ends earlier, at a higher version
    api, cache, served = Slow(), Cache(), Served(())
    slow = asyncio.create_task(resync.resync(cast(Cluster, api), cache, served, lambda key: None))
    await api.held.wait()
    api.version = 2424
    await resync.resync(cast(Cluster, api), cache, served, lambda key: None)
    # when the first goes on
    api.go.set()
    # then nothing is wrong, and a list that begins now at a lower version is
    await slow
    api.version = 2413
    with pytest.raises(RestoredError, match="version 2413 after 2424"):
        await resync.resync(cast(Cluster, api), cache, served, lambda key: None)
