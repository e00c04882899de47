"""Serves a few routes on a port, within connection limits; includes the metrics route."""

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
"""Records which client a request's connection belongs to, once authenticated."""
Check = Callable[[web.Request], Awaitable[web.Response | None]]
"""Returns the response to a request that is refused, or None."""
_BODY_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Port:
    """Where to listen, and the limits.

    Attributes:
        name: label in metrics: ``metrics``, ``progress``.
        host: an address of this machine; empty for all.
        number: port number.
        limits: connection limits.
        tls: TLS context for HTTPS.
    """

    name: str
    host: str
    number: int
    limits: Limits
    tls: ssl.SSLContext | None = None


class Server:
    """Routes on a port. One request for each connection: idle connections would only help to fill the port."""

    def __init__(self, routes: Iterable[web.RouteDef], port: Port, body_bytes: int = _BODY_BYTES) -> None:
        self._port = port
        self._application = web.Application(client_max_size=body_bytes, middlewares=[self._one_request])
        self._application.add_routes(routes)
        self._listener: Listener | None = None
        self._runner = web.AppRunner(self._application, access_log=None, shutdown_timeout=2.0)

    async def start(self) -> None:
        """Start listening. Raises OSError when the port is in use."""
        await self._runner.setup()
        name, make = self._port.name, cast(Callable[[], asyncio.Protocol], self._runner.server)
        self._listener = Listener(
            make, self._port.limits, self._port.tls, lambda reason: metrics.DROPPED.labels(name, reason).inc()
        )
        metrics.CONNECTIONS.labels(name).set_function(self._listener.__len__)
        self._listener.listen(self._port.host, self._port.number)

    async def stop(self) -> None:
        """Stop; requests in progress have two seconds to finish."""
        await self._runner.cleanup()
        if self._listener is not None:
            self._listener.close()

    def trust(self, request: web.Request, client: str) -> None:
        """Mark a request's connection as authenticated."""
        if self._listener is not None:
            self._listener.trust(request.protocol, client)

    @web.middleware
    async def _one_request(self, request: web.Request, handler: Callable[..., object]) -> web.StreamResponse:
        if self._listener is not None:
            self._listener.request_arrived(request.protocol)
        try:
            response: web.StreamResponse = await handler(request)  # type: ignore[misc]
        except web.HTTPException as answer:
            answer.force_close()
            raise
        response.force_close()
        return response


def metric_routes(refused: Check | None = None) -> list[web.RouteDef]:
    """/metrics, for everybody or for those who pass the check."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if refused is not None and (refusal := await refused(request)) is not None:
            return refusal
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [web.get("/metrics", answer)]
