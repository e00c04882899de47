"""The end of an attempt, and what follows from it."""

from dataclasses import KW_ONLY, dataclass
from enum import StrEnum

from lmft_api.reasons import Reason
from lmft_api.wire.result import Result


class Kind(StrEnum):
    """What follows from the end of an attempt."""

    OPEN = "Open"
    """It has not ended, or it has and its Job has yet to report how."""
    DONE = "Done"
    UNREAD = "Unread"
    """It succeeded but its result is lost: one more attempt recovers it."""
    INTERRUPTED = "Interrupted"
    RETRY = "Retry"
    FINAL = "Final"
    """Another attempt would end in the same way."""


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
    pod_seconds: float | None = None
    """Running time of all pods together, where there are several."""
    counted: bool = True
    """Whether it counts as a failure: not where a pod that no node took is the cause."""
    cause: str = ""
    """Kubernetes' reason for ending the pod, such as Evicted or OutOfcpu."""


OPEN = Verdict(Kind.OPEN)
