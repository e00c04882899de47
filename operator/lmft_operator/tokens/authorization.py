"""Who may read the metrics, as authorized by the API server; cached and rate-limited against strangers.

Any token of the cluster may be the right one, so nothing in a token identifies strangers before it is reviewed. The
source address does: each address may have only a limited number of unknown tokens reviewed.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

from lmft_operator.tokens.identity import Refusal
from lmft_operator.tokens.reviews import MAX_REVIEWS_AT_ONCE, MAX_TOKEN_CHARACTERS, remember

ALLOWED_SECONDS = 60.0
"""Seconds for which a permission is cached: a right that is revoked ends up to this much later."""
REFUSED_SECONDS = 10.0
"""Seconds for which a refusal is cached: a right that is granted takes effect up to this much later."""
ASK_SECONDS = 8.0
"""Longest wait for the API server, below the ten seconds that a connection and a scrape last."""
SECONDS_BETWEEN_REVIEWS = 1.0
REVIEWS_IN_A_BURST = 5
"""Limit on unknown tokens from one address: this many at once, then one a second. Allowed tokens do not count."""
MAX_ALLOWED_KEPT = 1_000
MAX_REFUSALS_KEPT = 1_000
MAX_SOURCES_KEPT = 10_000

Subject = dict[str, Any]
"""``user``, ``uid``, ``groups`` and ``extra`` as a SubjectAccessReview takes them."""
Who = Callable[[str], Awaitable[Subject | Refusal]]
May = Callable[[Subject], Awaitable[Refusal | None]]


def bearer(header: str) -> str | None:
    """The token of an Authorization header (RFC 6750), or None where there is none that could be one."""
    scheme, _, token = header.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN_CHARACTERS or " " in token:
        return None
    return token


def subject(review: dict[str, Any]) -> Subject | Refusal:
    """The user of a token, from the ``status`` of its TokenReview."""
    user = review.get("user")
    if review.get("authenticated") is not True or not isinstance(user, dict) or not user.get("username"):
        return Refusal(401, "token")
    return {"user": user["username"]} | {name: user[name] for name in ("uid", "groups", "extra") if user.get(name)}


def permitted(review: dict[str, Any]) -> Refusal | None:
    """Why a user is refused, or None, from the ``status`` of a SubjectAccessReview."""
    if review.get("allowed") is True and not review.get("denied"):
        return None
    return Refusal(403, "forbidden")


class Authorizer:
    """Decides whether the bearer of a token may read the metrics.

    Args:
        who: asks the API server whose token it is.
        may: asks the API server whether that user may read them.
        clock: monotonic seconds.
    """

    def __init__(self, who: Who, may: May, clock: Callable[[], float] = time.monotonic) -> None:
        self._who, self._may, self._clock = who, may, clock
        self._allowed: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        self._refused: OrderedDict[bytes, tuple[float, Refusal]] = OrderedDict()
        self._due: OrderedDict[str, float] = OrderedDict()
        # Unknown tokens wait for each other; tokens that were allowed before do not wait for them.
        self._strangers, self._known = (asyncio.Semaphore(MAX_REVIEWS_AT_ONCE) for _ in range(2))

    async def user(self, token: str, source: str) -> str | Refusal:
        """The user of a token, if that user may read the metrics.

        Args:
            token: bearer token of the request.
            source: IP address of the client.

        Returns:
            The user name, or a Refusal: 401 for an invalid token, 403 for a user without the right, 429 for an address
            with too many unknown tokens, 503 when the API server does not answer; a 503 is not cached.
        """
        key = hashlib.sha256(token.encode()).digest()
        if (found := self._remembered(key)) is not None:
            return found
        known = key in self._allowed
        if not known and not self._in_time(source):
            return Refusal(429, "reviews")
        try:
            async with asyncio.timeout(ASK_SECONDS), self._known if known else self._strangers:
                # Another request with this token may have asked meanwhile.
                return self._remembered(key) or await self._ask(token, key)
        except TimeoutError:
            return Refusal(503, "review")

    def _remembered(self, key: bytes) -> str | Refusal | None:
        now = self._clock()
        since, user = self._allowed.get(key, (-ALLOWED_SECONDS, ""))
        if user and now - since < ALLOWED_SECONDS:
            return user
        if (known := self._refused.get(key)) is not None and now - known[0] < REFUSED_SECONDS:
            return known[1]
        return None

    async def _ask(self, token: str, key: bytes) -> str | Refusal:
        asked = self._clock()
        reader = await self._who(token)
        found = reader if isinstance(reader, Refusal) else await self._may(reader) or str(reader["user"])
        if isinstance(found, str):
            remember(self._allowed, key, (asked, found), MAX_ALLOWED_KEPT)
        elif found.code < 500:
            self._allowed.pop(key, None)
            remember(self._refused, key, (asked, found), MAX_REFUSALS_KEPT)
        return found

    def _in_time(self, source: str) -> bool:
        """Whether an address may have one more unknown token reviewed now; if so it is counted."""
        now = self._clock()
        due = max(self._due.get(source, now), now)
        if due - now > (REVIEWS_IN_A_BURST - 1) * SECONDS_BETWEEN_REVIEWS:
            return False
        remember(self._due, source, due + SECONDS_BETWEEN_REVIEWS, MAX_SOURCES_KEPT)
        return True
