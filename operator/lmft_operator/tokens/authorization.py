"""Who may read the metrics, by the API server's word: asked for seldom, and not to be used up by strangers.

Any token of the cluster may be the right one, so nothing that a token says of itself tells strangers apart before it is
reviewed. What does is the address that it comes from: each may have so many unknown tokens reviewed, and no more.
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
"""How long a reader who may read is believed: a right that is taken away ends so much later."""
REFUSED_SECONDS = 10.0
"""How long one who may not is refused unasked: a right that is given holds so much later."""
ASK_SECONDS = 8.0
"""Longest wait for the API server's word, below the ten seconds that a connection and a scrape last."""
SECONDS_BETWEEN_REVIEWS = 1.0
REVIEWS_IN_A_BURST = 5
"""Of unknown tokens from one address: so many at once, then one a second; one that was allowed before need not wait."""
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
    """Whose token it is, from the ``status`` of its TokenReview."""
    user = review.get("user")
    if review.get("authenticated") is not True or not isinstance(user, dict) or not user.get("username"):
        return Refusal(401, "token")
    return {"user": user["username"]} | {name: user[name] for name in ("uid", "groups", "extra") if user.get(name)}


def permitted(review: dict[str, Any]) -> Refusal | None:
    """Why somebody may not, or None, from the ``status`` of a SubjectAccessReview."""
    if review.get("allowed") is True and not review.get("denied"):
        return None
    return Refusal(403, "forbidden")


class Authorizer:
    """Whether the bearer of a token may.

    Args:
        who: asks the API server whose token it is.
        may: asks it whether that one may.
        clock: seconds that never go back.
    """

    def __init__(self, who: Who, may: May, clock: Callable[[], float] = time.monotonic) -> None:
        self._who, self._may, self._clock = who, may, clock
        self._allowed: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        self._refused: OrderedDict[bytes, tuple[float, Refusal]] = OrderedDict()
        self._due: OrderedDict[str, float] = OrderedDict()
        # Strangers wait for each other, not those known for them.
        self._strangers, self._known = (asyncio.Semaphore(MAX_REVIEWS_AT_ONCE) for _ in range(2))

    async def user(self, token: str, source: str) -> str | Refusal:
        """The user whose token it is, when that one may.

        Args:
            token: from the request.
            source: address that it came from.

        Returns:
            A Refusal otherwise: 401 whose token is none, 403 who may not, 429 an address with too many unknown tokens,
            503 when the API server has no answer; that is not remembered.
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
        """Whether an address may have one more unknown token reviewed now; it is counted then."""
        now = self._clock()
        due = max(self._due.get(source, now), now)
        if due - now > (REVIEWS_IN_A_BURST - 1) * SECONDS_BETWEEN_REVIEWS:
            return False
        remember(self._due, source, due + SECONDS_BETWEEN_REVIEWS, MAX_SOURCES_KEPT)
        return True
