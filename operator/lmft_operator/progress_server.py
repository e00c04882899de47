"""HTTPS server for the pods' progress reports: proves who posts, bounds what is posted, hands it on."""

import asyncio
import hashlib
import ssl
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from aiohttp import web
from pydantic import ValidationError

from lmft_api.progress import MAX_BODY_BYTES, ProgressMessage
from lmft_operator.facts import PodFacts
from lmft_operator.progress import Identity, ProgressReport, Refusal

REVIEW_SECONDS = 60.0
"""How long a TokenReview is believed; a deleted pod is refused at once, for it is no longer known."""
MAX_REVIEWS_KEPT = 10_000
MAX_REVIEWS_AT_ONCE = 4
"""Strangers' tokens must not take up the operator's connections to the API server."""
MIN_SECONDS_BETWEEN_REPORTS = 0.5

Key = TypeVar("Key")
Value = TypeVar("Value")
Review = Callable[[str], Awaitable[Identity | Refusal]]
Admit = Callable[[Identity], PodFacts | Refusal]
Take = Callable[[str, ProgressReport], None]
Count = Callable[[str], None]


class ProgressServer:
    """Answers 200 when a report was taken; 401, 403, 413, 422 or 429 when not, and then nothing changes.

    Args:
        review: asks the API server whose token it is.
        admit: which known pod that is.
        take: gets the namespace and the report.
        count: told ``taken`` or the word of the refusal, for the metric.
        clock: UNIX seconds.
    """

    def __init__(
        self, review: Review, admit: Admit, take: Take, count: Count, clock: Callable[[], float] = time.time
    ) -> None:
        self._review, self._admit, self._take, self._count, self._clock = review, admit, take, count, clock
        self._reviews: OrderedDict[bytes, tuple[float, Identity | Refusal]] = OrderedDict()
        self._last: OrderedDict[str, float] = OrderedDict()
        self._reviewing = asyncio.Semaphore(MAX_REVIEWS_AT_ONCE)

    def application(self) -> web.Application:
        """The routes; any path takes a report, for the token says whose it is."""
        application = web.Application(client_max_size=MAX_BODY_BYTES)
        application.router.add_post("/{path:.*}", self._post)
        return application

    async def _post(self, request: web.Request) -> web.Response:
        outcome = await self._taken(request)
        if outcome is None:
            self._count("taken")
            return web.json_response({})
        self._count(outcome.reason)
        return web.json_response({"error": outcome.reason}, status=outcome.code)

    async def _taken(self, request: web.Request) -> Refusal | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not token or len(token) > 8192:
            return Refusal(401, "token")
        who = await self._reviewed(token)
        if isinstance(who, Refusal):
            return who
        pod = self._admit(who)
        if isinstance(pod, Refusal):
            return pod
        now = self._clock()
        if now - self._last.get(pod.uid, 0.0) < MIN_SECONDS_BETWEEN_REPORTS:
            return Refusal(429, "rate")
        _remember(self._last, pod.uid, now)  # before the body is read: what cannot be read counts too
        try:
            message = ProgressMessage.model_validate_json(await request.read())
        except web.HTTPRequestEntityTooLarge:
            return Refusal(413, "size")
        except ValidationError:
            return Refusal(422, "format")
        self._take(who.namespace, ProgressReport(pod.run_uid, pod.attempt, now, message.trainer_status))
        return None

    async def _reviewed(self, token: str) -> Identity | Refusal:
        """The review of a token, remembered for a while under its hash; refusals too, so that a flood stays cheap.

        What the API server could not review is not remembered: it may answer the next time.
        """
        key = hashlib.sha256(token.encode()).digest()
        now = self._clock()
        known = self._reviews.get(key)
        if known is not None and now - known[0] < REVIEW_SECONDS:
            return known[1]
        async with self._reviewing:
            found = await self._review(token)
        if not isinstance(found, Refusal) or found.code < 500:
            _remember(self._reviews, key, (now, found))
        return found


def _remember(entries: OrderedDict[Key, Value], key: Key, value: Value) -> None:
    entries[key] = value
    entries.move_to_end(key)
    while len(entries) > MAX_REVIEWS_KEPT:
        entries.popitem(last=False)


class ServingCertificate:
    """A TLS context that takes up a renewed certificate without a restart."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate, self._key = certificate, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._loaded = b""
        self.reload()

    def reload(self) -> bool:
        """Load the files again if they changed; new connections use them. A half-written pair keeps the old one."""
        content = self._certificate.read_bytes() + self._key.read_bytes()
        if content == self._loaded:
            return False
        self.context.load_cert_chain(self._certificate, self._key)
        self._loaded = content
        return True

    async def follow(self, every_seconds: float, say: Callable[[str], None]) -> None:
        """Look for a renewed certificate for as long as the task lives."""
        while True:
            await asyncio.sleep(every_seconds)
            try:
                if self.reload():
                    say("took up the renewed progress certificate")
            except (OSError, ssl.SSLError) as error:
                say(f"the renewed progress certificate cannot be used, the old one stays: {error}")
