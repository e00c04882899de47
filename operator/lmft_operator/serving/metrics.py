"""The metrics over HTTPS, for clients that the API server authorizes."""

import logging

from aiohttp import web

from lmft_operator.cluster.client import Cluster
from lmft_operator.cluster.errors import ClusterError
from lmft_operator.process import metrics
from lmft_operator.serving.certificates import LOOK_SECONDS, serving_certificate
from lmft_operator.serving.http import Port, Server, Trust, metric_routes
from lmft_operator.settings import OperatorSettings
from lmft_operator.tokens.authorization import Authorizer, Subject, bearer, permitted, subject
from lmft_operator.tokens.identity import Refusal

logger = logging.getLogger(__name__)
PATH = "/metrics"
_WORDS = {
    "token": "the request needs a bearer token that the API server knows",
    "forbidden": f"the token's user may not get the path {PATH}",
    "reviews": "too many unknown tokens from this address",
    "review": "the API server cannot be asked about the token",
}
_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}}


class Guard:
    """Refuses unauthorized requests for metrics, with the reason.

    Args:
        authorizer: decides whether the bearer of a token may read.
        trust: called with the request and its client once the token is verified.
    """

    def __init__(self, authorizer: Authorizer, trust: Trust = lambda request, client: None) -> None:
        self._authorizer, self.trust = authorizer, trust

    async def __call__(self, request: web.Request) -> web.Response | None:
        """The response to a request that is refused, or None."""
        found = await self._found(request)
        if isinstance(found, str):
            metrics.SCRAPES.labels("answered").inc()
            self.trust(request, found)
            return None
        metrics.SCRAPES.labels(found.reason).inc()
        return web.Response(text=f"{_WORDS[found.reason]}\n", status=found.code, headers=_HEADERS.get(found.code))

    async def _found(self, request: web.Request) -> str | Refusal:
        token = bearer(request.headers.get("Authorization", ""))
        return await self._authorizer.user(token, request.remote or "") if token else Refusal(401, "token")


def authorizer(cluster: Cluster) -> Authorizer:
    """An authorizer that asks this API server."""

    async def who(token: str) -> Subject | Refusal:
        try:
            return subject(await cluster.review_token(token, audience=None))
        except ClusterError as problem:
            logger.warning("a token for the metrics cannot be reviewed: %s", problem)
            return Refusal(503, "review")

    async def may(reader: Subject) -> Refusal | None:
        try:
            return permitted(await cluster.review_access(reader, PATH))
        except ClusterError as problem:
            logger.warning("whether %s may read the metrics cannot be asked: %s", reader["user"], problem)
            return Refusal(503, "review")

    return Authorizer(who, may)


async def serve_metrics(settings: OperatorSettings, cluster: Cluster) -> None:
    """Serve until cancelled. Runs continue without it: it waits for a missing certificate, and logs that."""
    files, here = settings.progress, settings.metrics
    certificate = await serving_certificate(files.cert_file, files.key_file, "metrics")
    guard = Guard(authorizer(cluster))
    port = Port("metrics", here.host, here.port, settings.connections.limits(), certificate.context)
    server = Server(metric_routes(guard), port)
    guard.trust = server.trust
    await server.start()
    try:
        await certificate.follow(LOOK_SECONDS, logger.info)
    finally:
        await server.stop()
