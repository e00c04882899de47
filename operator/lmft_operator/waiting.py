"""What a run waits for that has a Job but no running container, in words that a person can act on."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lmft_api.reasons import REASONS, Reason
from lmft_operator import scheduling
from lmft_operator.facts import JobFacts, PodFacts, Warning
from lmft_operator.scheduling import Wishes

NEWS_SECONDS = 180.0
"""kubelet and the Job controller repeat a warning at least this often while its cause lasts."""

_IMAGE = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
    | {"RegistryUnavailable", "SignatureValidationFailed"}
)
_SECRET_MISSING = re.compile(
    r"secret \S+ not found|non-existent secret key|couldn't find key .* in Secret", re.IGNORECASE
)


@dataclass(frozen=True)
class Wait:
    """Why nothing runs yet. ``seconds``: when to look again though nothing happened."""

    reason: Reason
    message: str
    seconds: float | None = None


def explain(
    job: JobFacts | None,
    pod: PodFacts | None,
    warnings: Mapping[str, Warning],
    wishes: Wishes,
    now: float,
    number: int,
) -> Wait:
    """What attempt ``number`` waits for.

    Args:
        job: of the attempt.
        pod: of the attempt.
        warnings: by the UID of their object.
        wishes: what the pod asks of a node.
        now: UNIX seconds.
        number: of the attempt.
    """
    if job is not None and job.suspended:
        return at_creation(number, queued=True)
    if pod is None or pod.gone:
        return _without_pod(_fresh(warnings, job.uid if job else "", now), number, now)
    if pod.unschedulable:
        return Wait(Reason.UNSCHEDULABLE, scheduling.explain(pod.unschedulable, wishes))
    if pod.waiting_reason in _IMAGE:
        words = f"{pod.waiting_reason}: {pod.waiting_message}".rstrip(": ")
        return Wait(Reason.IMAGE_PULL_FAILED, with_remedy(Reason.IMAGE_PULL_FAILED, words))
    if pod.waiting_reason in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
        missing = _SECRET_MISSING.search(pod.waiting_message)
        reason = Reason.SECRET_NOT_FOUND if missing else Reason.PENDING
        return Wait(reason, with_remedy(reason, f"{pod.waiting_reason}: {pod.waiting_message}"))
    warning = _fresh(warnings, pod.uid, now)
    if warning is not None and warning.reason in ("FailedMount", "FailedAttachVolume"):
        missing = _SECRET_MISSING.search(warning.message)
        reason = Reason.SECRET_NOT_FOUND if missing else Reason.PENDING
        words = with_remedy(reason, f"{warning.reason}: {warning.message}")
        return Wait(reason, words, warning.time + NEWS_SECONDS - now)
    return at_creation(number, queued=False)


def _without_pod(warning: Warning | None, number: int, now: float) -> Wait:
    if warning is None or warning.reason != "FailedCreate":
        return at_creation(number, queued=False)
    reason = reason_of_refusal(warning.message)
    words = with_remedy(reason, f"The pod cannot be created: {warning.message}")
    return Wait(reason, words, warning.time + NEWS_SECONDS - now)


def reason_of_refusal(words: str) -> Reason:
    """Why the API server creates neither Job nor pod, by what it says: for a quota, or for something else."""
    return Reason.QUOTA_EXCEEDED if "exceeded quota" in words or "failed quota" in words else Reason.PENDING


def with_remedy(reason: Reason, words: str) -> str:
    """What Kubernetes says, and the next thing to try where somebody has to."""
    return words if reason == Reason.PENDING else f"{words.rstrip('. ')}. {REASONS[reason].remedy}"


def at_creation(number: int, *, queued: bool) -> Wait:
    """What the Job of an attempt waits for as long as nothing else is known."""
    if queued:
        return Wait(Reason.QUEUED, "The Job waits, suspended, for its queue to admit it.")
    return Wait(Reason.PENDING, f"Waiting for the pod of attempt {number} to start.")


def _fresh(warnings: Mapping[str, Warning], uid: str, now: float) -> Warning | None:
    warning = warnings.get(uid)
    return warning if warning is not None and now - warning.time < NEWS_SECONDS else None
