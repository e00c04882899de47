"""What a run with a Job but no running container waits for, worded so that a person can act on it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lmft_api.reasons import REASONS, Reason
from lmft_api.status import Condition
from lmft_api.text.wording import sentence
from lmft_operator.decide import admission, scheduling
from lmft_operator.decide.admission import CANNOT_CREATE_POD
from lmft_operator.domain import kueue
from lmft_operator.domain.facts import JobFacts, PodFacts, WarningEvent
from lmft_operator.domain.plan import PodRequirements

NO_POD = "FailedCreate"
_VOLUME = "If it stays so, look at the claim and its driver: kubectl describe pvc, and the driver's pods on that node."
_NETWORK = "If it stays so, look at the network plugin's pods on that node: kubectl -n kube-system get pods -o wide."
_DEVICE = "If it stays so, look at the claim and its driver: kubectl describe resourceclaim, its driver's pods."
_CONTAINER = "If it stays so, look at the node's container runtime, and at what policies have added to the pod."
NO_START = {
    "FailedMount": _VOLUME,
    "FailedAttachVolume": "If it stays so, another node may still hold the volume: kubectl get volumeattachments.",
    "FailedMapVolume": _VOLUME,
    "FailedCreatePodSandBox": _NETWORK,
    "NetworkNotReady": _NETWORK,
    "FailedPrepareDynamicResources": _DEVICE,
    "FailedCreatePodContainer": _CONTAINER,
}
"""What keeps a pod from starting, by the reason of the Warning Event about it, and what to do about it."""
TOLD = frozenset({*NO_START, NO_POD})
"""Reasons of the Warning Events that are read: about a Job without a pod, or a pod that its node cannot set up."""
_NO_CONTAINER = {
    "CreateContainerError": _CONTAINER,
    "CreateContainerConfigError": "Create what it names, or have it removed from what policies add to the pod.",
    "RunContainerError": _CONTAINER,
    "PreStartHookError": _CONTAINER,
    "PostStartHookError": _CONTAINER,
    "CrashLoopBackOff": "Look at that container: kubectl logs POD -c CONTAINER --previous.",
}
"""What keeps a container from starting, by its waiting reason, and what to do about it."""
_QUEUE = "The Job waits, suspended, for its queue to admit it"
_CREATING = frozenset({"", "ContainerCreating", "PodInitializing"})
MANAGED = (
    "The Job has no pod: a policy of the cluster has set its spec.managedBy to {}, so that Kubernetes' own controller "
    "makes none. Exempt the Jobs of LMFineTune from that policy, or have that controller make the pod in this cluster."
)
_IMAGE = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
    | {"RegistryUnavailable", "SignatureValidationFailed"}
)
# client-go prefixes a message that combines others with the first; the second is a pod name, new each time.
_NOISE = re.compile(r"^\(combined from similar events\): |(?<=-)[a-z0-9]{5}(?=\" is forbidden)")
_SECRET_MISSING = re.compile(
    r"secret \S+ not found|non-existent secret key|couldn't find key .* in Secret", re.IGNORECASE
)


@dataclass(frozen=True)
class Wait:
    """Why nothing runs yet."""

    reason: Reason
    message: str


def explain(
    job: JobFacts | None,
    pod: PodFacts | None,
    warnings: Mapping[str, WarningEvent],
    requirements: PodRequirements,
    number: int,
    said: Condition | None,
) -> Wait:
    """What attempt ``number`` waits for.

    Events are unreliable: they are rate-limited and deleted after an hour. What one reported therefore holds until its
    cause is seen to be gone: the pod exists, or its volumes and network are ready.

    Args:
        job: Job of the attempt.
        pod: pod of the attempt.
        warnings: by the UID of the object that they are about.
        requirements: what the pod requires of a node.
        number: attempt number, from 1.
        said: condition of this attempt in the run's status; None where there is none yet.
    """
    if job is not None and job.suspended:
        return _in_queue(warnings.get(kueue.workload_of(job)), said)
    if pod is None or pod.gone:
        return _of_job(job, warnings, said) or at_creation(number, queued=False)
    return _of_pod(pod, warnings.get(pod.uid), requirements, said) or at_creation(number, queued=False)


def _in_queue(warning: WarningEvent | None, said: Condition | None) -> Wait:
    if warning is not None and warning.reason == kueue.PENDING:
        return Wait(Reason.QUEUED, f"{_QUEUE}: {sentence(warning.message)}")
    return _held(said, (f"{_QUEUE}: ",)) or Wait(Reason.QUEUED, f"{_QUEUE}.")


def _of_pod(
    pod: PodFacts, warning: WarningEvent | None, requirements: PodRequirements, said: Condition | None
) -> Wait | None:
    if pod.gates:
        return Wait(Reason.QUEUED, f"The pod waits for its scheduling gates to be removed: {pod.gates}.")
    if pod.unschedulable:
        return Wait(Reason.UNSCHEDULABLE, scheduling.explain(pod.unschedulable, requirements))
    words = f"{pod.waiting_reason}: {pod.waiting_message}".rstrip(": ")
    if pod.waiting_reason in _IMAGE:
        return Wait(Reason.IMAGE_PULL_FAILED, with_remedy(Reason.IMAGE_PULL_FAILED, words))
    if pod.waiting_reason not in _CREATING:
        return _perhaps_a_secret(words, _NO_CONTAINER.get(pod.waiting_reason, ""))
    if pod.sandboxed:
        return None
    if warning is not None and warning.reason in NO_START:
        return _perhaps_a_secret(f"{warning.reason}: {_NOISE.sub('', warning.message)}", NO_START[warning.reason])
    return _held(said, tuple(f"{reason}: " for reason in NO_START))


def _perhaps_a_secret(words: str, remedy: str) -> Wait:
    if _SECRET_MISSING.search(words):
        return Wait(Reason.SECRET_NOT_FOUND, with_remedy(Reason.SECRET_NOT_FOUND, words))
    # Most of these pass by themselves within seconds: no reason for an Event of ours.
    return Wait(Reason.PENDING, f"{words.rstrip('. ')}. {remedy}" if remedy else words)


def _of_job(job: JobFacts | None, warnings: Mapping[str, WarningEvent], said: Condition | None) -> Wait | None:
    words = no_pod(job, warnings)
    if job is not None and job.managed_by:
        return Wait(Reason.ADMISSION_FAILED, MANAGED.format(job.managed_by))
    return Wait(*admission.explained(CANNOT_CREATE_POD, words)) if words else _held(said, (CANNOT_CREATE_POD,))


def no_pod(job: JobFacts | None, warnings: Mapping[str, WarningEvent]) -> str:
    """Why the Job's controller could not create its pod, from its newest Event; empty when there is none."""
    warning = warnings.get(job.uid) if job is not None else None
    if job is None or warning is None or warning.reason != NO_POD or warning.time < int(job.started or job.created):
        return ""
    return _NOISE.sub("", warning.message)


def still_refused(said: Condition | None) -> Wait | None:
    """What the status says of a refused pod whose Job was created again, until an Event says otherwise."""
    return _held(said, (CANNOT_CREATE_POD,))


def _held(said: Condition | None, beginnings: tuple[str, ...]) -> Wait | None:
    """What the status reports from an Event that is no longer available."""
    if said is None or not said.message.startswith(beginnings) or said.reason not in Reason.__members__.values():
        return None
    return Wait(Reason(said.reason), said.message)


def with_remedy(reason: Reason, words: str) -> str:
    """Kubernetes' message, and what to do next where somebody has to act."""
    return words if reason == Reason.PENDING else f"{words.rstrip('. ')}. {REASONS[reason].remedy}"


def at_creation(number: int, *, queued: bool) -> Wait:
    """What an attempt's Job waits for while nothing else is known."""
    if queued:
        return Wait(Reason.QUEUED, f"{_QUEUE}.")
    return Wait(Reason.PENDING, f"Waiting for the pod of attempt {number} to start.")
