"""The end of an attempt, and what follows from it."""

from dataclasses import KW_ONLY, dataclass
from enum import StrEnum

from lmft_api.reasons import Reason
from lmft_api.wire.result import Result


class Kind(StrEnum):
    """What follows from the end of an attempt."""

    OPEN = "Open"
    """It has not ended, or has and its Job has yet to say how."""
    DONE = "Done"
    UNREAD = "Unread"
    """It ended well, but its result is lost: one more attempt fetches it."""
    INTERRUPTED = "Interrupted"
    RETRY = "Retry"
    FINAL = "Final"
    """Another attempt would end the same."""


@dataclass(frozen=True)
class Verdict:
    """The end of an attempt; times in UNIX seconds."""

    kind: Kind
    reason: Reason = Reason.PENDING
    message: str = ""
    _: KW_ONLY
    exit_code: int | None = None
    started: float | None = None
    ended: float | None = None
    result: Result | None = None
    cause: str = ""
    """Kubernetes' own word for what ended the pod, such as Evicted or OutOfcpu."""


OPEN = Verdict(Kind.OPEN)
