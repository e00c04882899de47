"""kopf lists and streams through our reader: its inner functions are those that we replace."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any, cast

import kopf
import pytest
from aiohttp import web
from kopf._cogs.clients import api, auth, fetching, watching
from kopf._cogs.structs import credentials, references

from lmft_api import GROUP, PLURAL, VERSION
from lmft_operator.cluster.client import Cluster
from lmft_operator.watch.streams import Watches

DEEP = '{"a":' * 20_000 + "1" + "}" * 20_000
METADATA = '{{"name":"r","namespace":"a","uid":"{uid}","resourceVersion":"{version}"}}'
RUN = '{{"kind":"LMFineTune","metadata":' + METADATA + ',"spec":{spec}}}'


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """kopf as it was."""
    before = fetching.fetch_objs, watching.watch_objs, vars(api)["json"]
    yield
    fetching.fetch_objs, watching.watch_objs, vars(api)["json"] = before


class Lists:
    """An API server's lists."""

    async def version(self, kind: str, namespace: str | None) -> int:
        return 40

    async def pages(self, kind: str, namespace: str | None) -> AsyncIterator[tuple[list[Any], int]]:
        yield [{"kind": "Event", "metadata": {"uid": "e"}}], 41


async def test_a_hostile_object_in_a_watch_ends_neither_kopf_nor_the_watch() -> None:
    asked: list[str] = []

    async def watch(request: web.Request) -> web.StreamResponse:
        asked.append(request.query["resourceVersion"])
        answer = web.StreamResponse()
        await answer.prepare(request)
        for number, spec in enumerate([DEEP, "9" * 5_000, '"' + "x" * 1_500_000 + '"', '{"model":{"name":"gpt2"}}']):
            run = RUN.format(uid=f"u{number}", version=50 + number, spec=spec)
            await answer.write(f'{{"type":"ADDED","object":{run}}}\n'.encode())
        return answer

    application = web.Application()
    application.router.add_get("/{path:.*}", watch)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    begun: list[None] = []
    watches = Watches(cast(Cluster, Lists()), lambda: begun.append(None))
    watches.install()
    seen: list[Any] = []
    try:
        async for event in stream(f"http://127.0.0.1:{runner.addresses[0][1]}"):
            seen.append(event)
            if len(seen) == 5:
                break
    finally:
        await runner.cleanup()
    # then the watch begins at the list's version, without the list's objects, and all of them arrive
    assert (asked[0], len(begun)) == ("40", 1)
    assert seen[0] is watching.Bookmark.LISTED
    assert [event["object"]["metadata"]["uid"] for event in seen[1:]] == ["u0", "u1", "u2", "u3"]
    assert ["unread" in event["object"] for event in seen[1:]] == [True, False, True, False]
    assert seen[4]["object"]["spec"] == {"model": {"name": "gpt2"}}


@pytest.mark.parametrize("status", [403, 404])
async def test_a_watch_that_is_refused_later_on_begins_again_instead_of_ending_the_process(status: int) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.json_response({"kind": "Status", "code": status, "message": "no"}, status=status)

    application = web.Application()
    application.router.add_get("/{path:.*}", refuse)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    Watches(cast(Cluster, Lists()), lambda: None).install()
    try:
        events = [event async for event in stream(f"http://127.0.0.1:{runner.addresses[0][1]}")]
    finally:
        await runner.cleanup()
    assert events == [watching.Bookmark.LISTED]  # ended as one whose version is too old: kopf lists anew


async def test_the_first_lists_wait_for_the_watches_but_not_forever(caplog: pytest.LogCaptureFixture) -> None:
    watches = Watches(cast(Cluster, Lists()), lambda: None)
    watches.install()
    for plural in (PLURAL, "jobs", "events"):
        found = [page async for page in fetch(plural)]
        assert found == [([{"kind": "Event", "metadata": {"uid": "e"}}], "41")] if plural == "events" else [([], "40")]
    await watches.wait(0.01)
    assert "no watch of pods has started yet" in caplog.text
    caplog.clear()
    assert [page async for page in fetch("pods")] == [([], "40")]
    await asyncio.wait_for(watches.wait(60.0), 1.0)
    assert "no watch of" not in caplog.text  # other tests' connections may be collected, and asyncio says so


def fetch(plural: str) -> AsyncIterator[Any]:
    resource = SimpleNamespace(plural=plural)
    found: AsyncIterator[Any] = fetching.fetch_objs(
        resource=cast(Any, resource), namespace=None, settings=kopf.OperatorSettings(), logger=cast(Any, None)
    )
    return found


async def stream(server: str) -> AsyncIterator[Any]:
    """kopf's own watch of runs, with a session to this server."""
    vault = credentials.Vault({"ours": credentials.ConnectionInfo(server=server)})
    auth.vault_var.set(vault)
    resource = references.Resource(GROUP, VERSION, PLURAL, namespaced=True, preferred=True)
    settings = kopf.OperatorSettings()
    settings.networking.error_backoffs = []
    paused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async for event in watching.continuous_watch(
        settings=settings, resource=resource, namespace=None, operator_pause_waiter=cast(Any, paused)
    ):
        yield event
