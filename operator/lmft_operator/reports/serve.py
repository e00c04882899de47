"""The progress server in the running operator: its certificate, token reviews by the API server, and the known pods."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from lmft_api.wire.progress import MAX_BODY_BYTES
from lmft_operator.cluster.client import Cluster
from lmft_operator.cluster.errors import ClusterError
from lmft_operator.domain.facts import Key, PodFacts
from lmft_operator.process import metrics
from lmft_operator.process.limits import Limits
from lmft_operator.reports.relay import Relay
from lmft_operator.reports.server import ProgressServer
from lmft_operator.serving.certificates import LOOK_SECONDS, serving_certificate
from lmft_operator.serving.http import Port, Server
from lmft_operator.settings import ProgressSettings
from lmft_operator.status.progress import ProgressReport, admitted
from lmft_operator.tokens.identity import Identity, Refusal, identity
from lmft_operator.tokens.reviews import Reviews
from lmft_operator.watch.cache import Cache

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Role:
    """Role of an operator at the moment.

    Attributes:
        decides: whether it is the leader.
        knows: whether it has listed all objects.
        leader: address of the leader, when it is another operator.
    """

    decides: Callable[[], bool]
    knows: Callable[[], bool]
    leader: Callable[[], str | None]


async def serve_reports(
    settings: ProgressSettings,
    limits: Limits,
    cluster: Cluster,
    cache: Cache,
    take: Callable[[Key, ProgressReport], None],
    role: Role,
    clock: Callable[[], float],
) -> None:
    """Serve until cancelled. Runs continue without it: it waits for a missing certificate, and logs that."""

    async def review(token: str) -> Identity | Refusal:
        try:
            return identity(await cluster.review_token(token))
        except ClusterError as problem:
            logger.warning("a token cannot be reviewed: %s", problem)
            return Refusal(503, "review")

    def admit(who: Identity) -> PodFacts | Refusal:
        key, pods, jobs = cache.family(who.pod_uid)
        return admitted(who, pods, jobs) if key is not None and key.namespace == who.namespace else Refusal(403, "pod")

    def taken(namespace: str, report: ProgressReport) -> None:
        key = cache.key_of(report.run_uid)
        if key is not None and key.namespace == namespace:
            take(key, report)

    certificate = await serving_certificate(settings.cert_file, settings.key_file, "progress reports")

    def count(outcome: str) -> None:
        metrics.PROGRESS.labels(outcome).inc()

    reports = ProgressServer(Reviews(review), admit, taken, count, clock=clock)
    relay = Relay(settings, role.leader, count)

    async def post(request: web.Request) -> web.Response:
        if not role.decides():
            return await relay.post(request)
        if not role.knows():
            count("starting")
            return web.json_response({"error": "starting"}, status=503)
        return await reports.post(request)

    server = Server(
        [web.post("/{path:.*}", post)],  # any path: the token says which run it belongs to
        Port("progress", settings.host, settings.port, limits, certificate.context),
        MAX_BODY_BYTES,
    )
    reports.trust = server.trust
    await server.start()
    try:
        await certificate.follow(LOOK_SECONDS, logger.info)
    finally:
        await server.stop()
