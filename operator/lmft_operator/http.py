"""Probes and metrics over plain HTTP."""

from collections.abc import Callable, Iterable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

Problem = Callable[[], str | None]
"""None when all is well, else what is wrong."""


def probe_routes(live: Problem, ready: Problem) -> list[web.RouteDef]:
    """/healthz, /readyz and /metrics."""

    def probe(check: Problem, failing: int) -> Callable[[web.Request], object]:
        async def answer(_: web.Request) -> web.Response:
            problem = check()
            return web.Response(text=f"{problem or 'ok'}\n", status=failing if problem else 200)

        return answer

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [
        web.get("/healthz", probe(live, 500)),  # type: ignore[arg-type]
        web.get("/readyz", probe(ready, 503)),  # type: ignore[arg-type]
        web.get("/metrics", metrics),
    ]


async def serve(routes: Iterable[web.RouteDef], host: str, port: int) -> web.AppRunner:
    """Start a server; ``cleanup()`` on what is returned stops it."""
    application = web.Application(client_max_size=64 * 1024)
    application.add_routes(routes)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
