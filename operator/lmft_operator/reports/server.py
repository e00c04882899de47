"""HTTPS server for the pods' progress reports: authenticates the pod, limits size and rate, passes the report on."""

import time
from collections import OrderedDict
from collections.abc import Callable

from aiohttp import web
from pydantic import ValidationError

from lmft_api.wire.progress import ProgressMessage
from lmft_operator.domain.facts import PodFacts
from lmft_operator.serving.http import Trust
from lmft_operator.status.progress import ProgressReport
from lmft_operator.tokens.identity import Identity, Refusal, claimed
from lmft_operator.tokens.reviews import MAX_TOKEN_CHARACTERS, Reviews, remember

MIN_SECONDS_BETWEEN_REPORTS = 0.5
MAX_PODS_KEPT = 10_000

Admit = Callable[[Identity], PodFacts | Refusal]
Take = Callable[[str, ProgressReport], None]
Count = Callable[[str], None]


class ProgressServer:
    """Answers 200 when a report was accepted; 401, 403, 413, 422 or 429 when not, and then nothing changes.

    Args:
        reviews: verifies tokens with the API server.
        admit: finds the known pod of an identity.
        take: receives the namespace and the report.
        count: called with ``taken`` or the word of the refusal, for the metric.
        trust: called with the request and its client once the token is verified.
        clock: UNIX seconds.
    """

    def __init__(
        self,
        reviews: Reviews,
        admit: Admit,
        take: Take,
        count: Count,
        trust: Trust = lambda request, client: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._reviews, self._admit, self._take, self._count = reviews, admit, take, count
        self.trust, self._clock = trust, clock
        self._last: OrderedDict[str, float] = OrderedDict()

    async def post(self, request: web.Request) -> web.Response:
        """Receive a report."""
        outcome = await self._taken(request)
        if outcome is None:
            self._count("taken")
            return web.json_response({})
        self._count(outcome.reason)
        return web.json_response({"error": outcome.reason}, status=outcome.code)

    async def _taken(self, request: web.Request) -> Refusal | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not token or len(token) > MAX_TOKEN_CHARACTERS:
            return Refusal(401, "token")
        who = claimed(token)
        if isinstance(who, Refusal):
            return who
        # The cheap check first: a token that is not of a run's pod, verified or not, is of no use here.
        pod = self._admit(who)
        if isinstance(pod, Refusal):
            return pod
        refusal = await self._reviews.refusal(token, who)
        if refusal is not None:
            return refusal
        self.trust(request, pod.uid)
        pod = self._admit(who)  # the review may have taken a while
        if isinstance(pod, Refusal):
            return pod
        now = self._clock()
        if 0 <= now - self._last.get(pod.uid, 0.0) < MIN_SECONDS_BETWEEN_REPORTS:
            return Refusal(429, "rate")
        remember(self._last, pod.uid, now, MAX_PODS_KEPT)  # before the body is read: unreadable bodies count too
        try:
            message = ProgressMessage.model_validate_json(await request.read())
        except web.HTTPRequestEntityTooLarge:
            return Refusal(413, "size")
        except ValidationError:
            return Refusal(422, "format")
        self._take(who.namespace, ProgressReport(pod.run_uid, pod.attempt, now, message.trainer_status, pod.uid))
        return None
