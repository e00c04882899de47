"""A standby's progress server: it forwards reports to the leader, since it knows no pods itself."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from lmft_api.wire.progress import MAX_BODY_BYTES
from lmft_operator.settings import ProgressSettings
from lmft_operator.tokens.identity import Refusal, claimed

FORWARDED = "Lmft-Forwarded"
"""Header of a report that has been forwarded once: it is not forwarded again."""
AT_ONCE = 32
SECONDS = 5.0


class Relay:
    """Returns the leader's answer, or 503 when the leader cannot be reached.

    Args:
        settings: the authority that signed the leader's certificate, and the name that the certificate must have.
        leader: address of the leader, ``host:port``, or None.
        count: called with the outcome, for the metric.
    """

    def __init__(
        self, settings: ProgressSettings, leader: Callable[[], str | None], count: Callable[[str], None]
    ) -> None:
        self._authority, self._leader, self._count = Path(settings.ca_file), leader, count
        self._host = urlsplit(settings.url or "").hostname
        self._free = asyncio.Semaphore(AT_ONCE)

    async def post(self, request: web.Request) -> web.Response:
        """Forward a report."""
        outcome = await self._handed_on(request)
        if isinstance(outcome, Refusal):
            self._count(outcome.reason)
            return web.json_response({"error": outcome.reason}, status=outcome.code)
        self._count("forwarded")
        return outcome

    async def _handed_on(self, request: web.Request) -> web.Response | Refusal:
        authorization = request.headers.get("Authorization", "")
        who = claimed(authorization.removeprefix("Bearer "))
        if isinstance(who, Refusal):
            return who
        leader = self._leader()
        if leader is None or FORWARDED in request.headers:
            return Refusal(503, "standby")
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return Refusal(413, "size")
        headers = {"Authorization": authorization, FORWARDED: "1", "Content-Type": "application/json"}
        try:
            tls = ssl.create_default_context(cafile=self._authority)
            async with (
                self._free,
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS)) as session,
                session.post(
                    f"https://{leader}/", data=body, headers=headers, ssl=tls, server_hostname=self._host,
                    allow_redirects=False,
                ) as answer,
            ):  # fmt: skip
                said = await answer.content.read(MAX_BODY_BYTES)
                return web.Response(body=said, status=answer.status, content_type="application/json")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return Refusal(503, "leader")
