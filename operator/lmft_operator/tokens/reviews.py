"""Reviews of pods' tokens by the API server; cached and rate-limited, so that strangers cannot exhaust them."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeVar

from lmft_operator.tokens.identity import Identity, Refusal

REVIEW_SECONDS = 60.0
"""Seconds for which a review is cached; a deleted pod is refused at once, since it is no longer known."""
MAX_PODS_KEPT = 10_000
MAX_REFUSALS_KEPT = 1_000
MAX_REVIEWS_AT_ONCE = 4
"""Limit on concurrent reviews: strangers' tokens must not use up the operator's connections to the API server."""
SECONDS_BETWEEN_REVIEWS = 1.0
"""Seconds between reviews of tokens that claim the same pod; a token proven before need not wait."""
MAX_TOKEN_CHARACTERS = 8192

Key = TypeVar("Key")
Value = TypeVar("Value")
Review = Callable[[str], Awaitable[Identity | Refusal]]


class Reviews:
    """Verifies that tokens are what they claim to be.

    Proven and refused tokens are cached separately, one proven token for each pod: whoever sends many, valid or not,
    displaces only their own.

    Args:
        review: asks the API server whose token it is.
        clock: monotonic seconds.
    """

    def __init__(self, review: Review, clock: Callable[[], float] = time.monotonic) -> None:
        self._review, self._clock = review, clock
        self._proven: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._refused: OrderedDict[bytes, tuple[float, Refusal]] = OrderedDict()
        self._asked: OrderedDict[str, float] = OrderedDict()
        self._reviewing = asyncio.Semaphore(MAX_REVIEWS_AT_ONCE)

    async def refusal(self, token: str, who: Identity) -> Refusal | None:
        """Why a token does not prove what it claims, or None if it does.

        A failed review is not cached: the API server may answer the next time.
        """
        key, now = hashlib.sha256(token.encode()).digest(), self._clock()
        proven, since = self._proven.get(who.pod_uid, (b"", 0.0))
        if proven == key and now - since < REVIEW_SECONDS:
            return None
        if (known := self._refused.get(key)) is not None and now - known[0] < REVIEW_SECONDS:
            return known[1]
        if proven != key:
            if now - self._asked.get(who.pod_uid, 0.0) < SECONDS_BETWEEN_REVIEWS:
                return Refusal(429, "reviews")
            remember(self._asked, who.pod_uid, now, MAX_PODS_KEPT)
        async with self._reviewing:
            found = await self._review(token)
        if found == who:
            remember(self._proven, who.pod_uid, (key, now), MAX_PODS_KEPT)
            return None
        refusal = found if isinstance(found, Refusal) else Refusal(401, "token")
        if refusal.code < 500:
            remember(self._refused, key, (now, refusal), MAX_REFUSALS_KEPT)
        return refusal


def remember(entries: OrderedDict[Key, Value], key: Key, value: Value, most: int) -> None:
    """Store an entry as the newest of at most ``most``."""
    entries[key] = value
    entries.move_to_end(key)
    while len(entries) > most:
        entries.popitem(last=False)
