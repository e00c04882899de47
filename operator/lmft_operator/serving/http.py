"""Serves a few routes on a port, within bounds; and what metrics answer."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import cast

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from lmft_operator.process import metrics
from lmft_operator.process.limits import Limits
from lmft_operator.serving.connections import Listener

Trust = Callable[[web.Request, str], None]
"""Says of a request's connection whose it has proven to be."""
Check = Callable[[web.Request], Awaitable[web.Response | None]]
"""The answer to a request that is refused, or None."""
_BODY_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Port:
    """Where to listen, and within which bounds.

    Attributes:
        name: in metrics: ``metrics``, ``progress``.
        host: an address of this machine; empty for all of them.
        number: of the port.
        limits: of its connections.
        tls: for HTTPS.
    """

    name: str
    host: str
    number: int
    limits: Limits
    tls: ssl.SSLContext | None = None


class Server:
    """Routes on a port. One request a connection: what stays open serves nobody but whoever wants to fill the port."""

    def __init__(self, routes: Iterable[web.RouteDef], port: Port, body_bytes: int = _BODY_BYTES) -> None:
        self._port = port
        self._application = web.Application(client_max_size=body_bytes, middlewares=[self._one_request])
        self._application.add_routes(routes)
        self._listener: Listener | None = None
        self._runner = web.AppRunner(self._application, access_log=None, shutdown_timeout=2.0)

    async def start(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        await self._runner.setup()
        dropped, name, make = (
            metrics.DROPPED,
            self._port.name,
            cast(Callable[[], asyncio.Protocol], self._runner.server),
        )
        self._listener = Listener(
            make, self._port.limits, self._port.tls, lambda reason: dropped.labels(name, reason).inc()
        )  # fmt: skip
        metrics.CONNECTIONS.labels(name).set_function(self._listener.__len__)
        self._listener.listen(self._port.host, self._port.number)

    async def stop(self) -> None:
        """Finish what is being answered, within two seconds."""
        await self._runner.cleanup()
        if self._listener is not None:
            self._listener.close()

    def trust(self, request: web.Request, client: str) -> None:
        """A request has proven whose it is."""
        if self._listener is not None:
            self._listener.trust(request.protocol, client)

    @web.middleware
    async def _one_request(self, request: web.Request, handler: Callable[..., object]) -> web.StreamResponse:
        if self._listener is not None:
            self._listener.heard(request.protocol)
        try:
            response: web.StreamResponse = await handler(request)  # type: ignore[misc]
        except web.HTTPException as answer:
            answer.force_close()
            raise
        response.force_close()
        return response


def metric_routes(refused: Check | None = None) -> list[web.RouteDef]:
    """/metrics, for everybody or for those who pass a check."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if refused is not None and (refusal := await refused(request)) is not None:
            return refusal
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [web.get("/metrics", answer)]
