"""The progress server in the running operator: its certificate, the API server's word on tokens, and the known pods."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import cast

from aiohttp import web

from lmft_operator import metrics
from lmft_operator.cache import Cache
from lmft_operator.cluster import Cluster
from lmft_operator.connections import Bounded
from lmft_operator.errors import ClusterError
from lmft_operator.facts import Key, PodFacts
from lmft_operator.progress import Identity, ProgressReport, Refusal, admitted, identity
from lmft_operator.progress_server import ProgressServer, ServingCertificate
from lmft_operator.settings import ProgressSettings

logger = logging.getLogger(__name__)
CERTIFICATE_SECONDS = 30.0
MAX_CONNECTIONS = 512
CONNECTION_SECONDS = 10.0
HANDSHAKE_SECONDS = 5.0


async def serve_reports(
    settings: ProgressSettings, cluster: Cluster, cache: Cache, take: Callable[[Key, ProgressReport], None]
) -> None:
    """Serve until cancelled. Runs go on without it: a missing certificate is waited for, and said."""

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

    certificate = await _certificate(settings)
    server = ProgressServer(review, admit, taken, lambda outcome: metrics.PROGRESS.labels(outcome).inc())
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    protocols = cast(Callable[[], asyncio.Protocol], runner.server)
    bounded = Bounded(
        protocols, MAX_CONNECTIONS, CONNECTION_SECONDS, lambda: metrics.PROGRESS.labels("connections").inc()
    )
    # Pods reach it from every node's network.
    listener = await asyncio.get_running_loop().create_server(
        bounded, settings.host, settings.port, ssl=certificate.context, ssl_handshake_timeout=HANDSHAKE_SECONDS
    )
    try:
        await certificate.follow(CERTIFICATE_SECONDS, logger.info)
    finally:
        listener.close()
        await runner.cleanup()


async def _certificate(settings: ProgressSettings) -> ServingCertificate:
    said = ""
    while True:
        try:
            return ServingCertificate(Path(settings.cert_file), Path(settings.key_file))
        except OSError as problem:  # ssl.SSLError is one
            if str(problem) != said:
                said = str(problem)
                logger.warning("no progress reports until the serving certificate can be read: %s", problem)
        await asyncio.sleep(5.0)
