"""The closed list of reasons of the ``Succeeded`` condition, and the exit codes of the job.

The job reports its reason in the result message; the exit code is the fallback when there is no message.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Phase(StrEnum):
    """The run's phase, for the eye only; conditions are the API."""

    PENDING = "Pending"
    SUSPENDED = "Suspended"
    PREPARING = "Preparing"
    TRAINING = "Training"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class Reason(StrEnum):
    """Reason of the ``Succeeded`` condition."""

    # While Unknown
    PENDING = "Pending"
    QUEUED = "Queued"
    UNSCHEDULABLE = "Unschedulable"
    QUOTA_EXCEEDED = "QuotaExceeded"
    ADMISSION_FAILED = "AdmissionFailed"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason
    PREPARING = "Preparing"
    TRAINING = "Training"
    EVALUATING = "Evaluating"
    INTERRUPTED = "Interrupted"
    RETRYING = "Retrying"
    SUSPENDED = "Suspended"
    STALLED = "Stalled"
    PEERS_MISSING = "PeersMissing"
    NETWORK_UNREACHABLE = "NetworkUnreachable"
    # True
    COMPLETED = "Completed"
    # False
    INVALID_SPEC = "InvalidSpec"
    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_ACCESS_DENIED = "ModelAccessDenied"
    DATASET_NOT_FOUND = "DatasetNotFound"
    DATASET_ACCESS_DENIED = "DatasetAccessDenied"
    DATASET_INVALID = "DatasetInvalid"
    STORAGE_ACCESS_DENIED = "StorageAccessDenied"
    STORAGE_UNAVAILABLE = "StorageUnavailable"
    ACCELERATOR_MISSING = "AcceleratorMissing"
    ACCELERATOR_OUT_OF_MEMORY = "AcceleratorOutOfMemory"
    OUT_OF_MEMORY = "OutOfMemory"
    DIVERGED = "Diverged"
    HUNG = "Hung"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    RETRIES_EXHAUSTED = "RetriesExhausted"
    INTERNAL_ERROR = "InternalError"


FAILURES = frozenset(
    {
        Reason.INVALID_SPEC,
        Reason.MODEL_NOT_FOUND,
        Reason.MODEL_ACCESS_DENIED,
        Reason.DATASET_NOT_FOUND,
        Reason.DATASET_ACCESS_DENIED,
        Reason.DATASET_INVALID,
        Reason.STORAGE_ACCESS_DENIED,
        Reason.STORAGE_UNAVAILABLE,
        Reason.ACCELERATOR_MISSING,
        Reason.ACCELERATOR_OUT_OF_MEMORY,
        Reason.OUT_OF_MEMORY,
        Reason.DIVERGED,
        Reason.HUNG,
        Reason.DEADLINE_EXCEEDED,
        Reason.RETRIES_EXHAUSTED,
        Reason.INTERNAL_ERROR,
    }
)
"""Reasons of ``Succeeded=False``."""


PEERS = frozenset({Reason.PEERS_MISSING, Reason.NETWORK_UNREACHABLE})
"""Reasons why the pods of an attempt on several nodes did not work together: worth another attempt."""


class ExitCode(IntEnum):
    """How the job's process ends."""

    DONE = 0
    INVALID = 2
    """The spec cannot work; every problem was listed at once."""
    REFUSED = 3
    """Model, data set or storage refused or not found."""
    ACCELERATOR_MEMORY = 4
    """Accelerator memory does not suffice even for a batch of 1."""
    DIVERGED = 5
    """NaN or Inf in the loss or in an evaluation."""
    UNAVAILABLE = 6
    """Storage or hub unreachable or failing after its retries: worth another attempt."""
    HUNG = 7
    """No step for a bounded time; stopped by the job's own watchdog."""
    PEERS = 8
    """The other pods of the attempt did not come, or were lost or not reached: worth another attempt."""
    INTERRUPTED = 75
    """Stopped by SIGTERM, after saving what there was to save."""


FINAL_EXIT_CODES = frozenset({ExitCode.INVALID, ExitCode.REFUSED, ExitCode.ACCELERATOR_MEMORY, ExitCode.DIVERGED})
"""Exit codes after which another attempt could not end differently."""


@dataclass(frozen=True)
class ReasonInfo:
    """What a reason means to a person: its cause, and what to do about it."""

    cause: str
    remedy: str


REASONS: dict[Reason, ReasonInfo] = {
    Reason.PENDING: ReasonInfo("The run was accepted and its Job is being created.", "Nothing; this takes a second."),
    Reason.QUEUED: ReasonInfo(
        "A queue controller such as Kueue holds the Job, or its pod by scheduling gates, until there is room.",
        "Wait, or look at the queue's workload; the message names the gates.",
    ),
    Reason.UNSCHEDULABLE: ReasonInfo(
        "No node can take the pod; the message says what each of them lacks.",
        "Free or add capacity; or start a new run with smaller spec.resources, or with the tolerations and "
        "nodeSelector that the message asks for.",
    ),
    Reason.QUOTA_EXCEEDED: ReasonInfo(
        "A ResourceQuota of the namespace forbids the pod, or requires a request or limit that it does not set; the "
        "message says which.",
        "Free quota, or ask for it to be raised: the run then starts by itself. Or request less in spec.resources of a "
        "new run.",
    ),
    Reason.ADMISSION_FAILED: ReasonInfo(
        "The API server rejects the Job or its pod, because of a webhook that refuses or does not answer, an admission "
        "policy, a LimitRange, or a PriorityClass, RuntimeClass or ServiceAccount that does not exist; the message "
        "says which.",
        "Fix what the message names, in the manifest or in the cluster: the run is retried automatically every few "
        "seconds, and until its first pod exists its manifest may be changed.",
    ),
    Reason.IMAGE_PULL_FAILED: ReasonInfo(
        "The node cannot pull the image.",
        "Check that the registry has the image and that the node may pull it; kubelet keeps retrying. Another image or "
        "other spec.podTemplate.imagePullSecrets need a new run.",
    ),
    Reason.SECRET_NOT_FOUND: ReasonInfo(
        "A Secret that the manifest names does not exist in the namespace, or lacks a key.",
        "Create it; kubelet retries every few seconds.",
    ),
    Reason.PREPARING: ReasonInfo(
        "The job checks model, data set and storage, then tokenises and packs.", "Nothing; see progress."
    ),
    Reason.TRAINING: ReasonInfo("The model is being trained.", "Nothing; see progress."),
    Reason.EVALUATING: ReasonInfo(
        "The model is being evaluated on the held-out data, or answers the prompts.", "Nothing; see progress."
    ),
    Reason.INTERRUPTED: ReasonInfo(
        "The pod was evicted, preempted, drained or deleted: the next attempt starts at once. Or the node's kubelet "
        "rejected it (OutOf…, UnexpectedAdmissionError and the like): the next one starts after a back-off.",
        "Nothing; it resumes from the newest verified checkpoint. If the kubelet rejected the pod, the "
        "message has its reason.",
    ),
    Reason.RETRYING: ReasonInfo(
        "An attempt failed, but another one may succeed; it starts after a back-off.",
        "Nothing yet; the message says what failed.",
    ),
    Reason.SUSPENDED: ReasonInfo("spec.suspend is true.", "Set spec.suspend to false to resume."),
    Reason.STALLED: ReasonInfo(
        "The pod runs but has not reported progress for a while; it is not stopped because of that.",
        "Look at its log. The job's own watchdog ends it when nothing moves (see Hung); downloads from the hub are "
        "limited only by the hub's client and spec.activeDeadlineSeconds. Its next report clears this state.",
    ),
    Reason.PEERS_MISSING: ReasonInfo(
        "Of a run on several nodes, not all pods came together within ten minutes of their start, or one was lost "
        "while they trained; the message says which, and what is known of it.",
        "Look at the pod that the message names: whether a node takes it, and its log. The run is retried after a "
        "back-off, from its newest checkpoint; with fewer nodes if spec.resources.nodes is lowered, or "
        "spec.resources.elastic allows it.",
    ),
    Reason.NETWORK_UNREACHABLE: ReasonInfo(
        "The pods of a run on several nodes do not reach each other: a name that the cluster's DNS does not resolve, a "
        "port that refuses or does not answer, or a NetworkPolicy; the message says which.",
        "Check that the namespace's NetworkPolicies let pods of one run reach each other (chart value "
        "networkPolicy.peers), and the cluster's DNS. The run is retried by itself up to spec.maxRetries.",
    ),
    Reason.COMPLETED: ReasonInfo(
        "The run is done; model and report are in storage.", "Nothing; status.results has the addresses."
    ),
    Reason.INVALID_SPEC: ReasonInfo(
        "The manifest cannot work, or the cluster's policy forbids it; all problems are listed.",
        "Fix the fields named in the message and apply again; after a first attempt, as a new run.",
    ),
    Reason.MODEL_NOT_FOUND: ReasonInfo(
        "The model, its revision or its tokenizer is not where the manifest says.",
        "Check the spelling of spec.model, in a new run; a private model needs spec.hubTokenSecretRef.",
    ),
    Reason.MODEL_ACCESS_DENIED: ReasonInfo(
        "The hub or the storage denies access to the model with these credentials.",
        "Accept the model's licence on the hub, or put a token that may read it into the Secret; then start a new run.",
    ),
    Reason.DATASET_NOT_FOUND: ReasonInfo(
        "The data set, its config, split or files are not where the manifest says.",
        "Check the spelling of spec.dataset, in a new run; a private data set needs spec.hubTokenSecretRef.",
    ),
    Reason.DATASET_ACCESS_DENIED: ReasonInfo(
        "The hub or the storage denies access to the data set with these credentials.",
        "Accept the data set's terms, or put credentials that may read it into the Secret; then start a new run.",
    ),
    Reason.DATASET_INVALID: ReasonInfo(
        "The data was read but cannot be trained on: a field, an encoding, a format, or too little text.",
        "Fix the data or the field named in the message, in a new run.",
    ),
    Reason.STORAGE_ACCESS_DENIED: ReasonInfo(
        "The output storage denies access: wrong keys, a bucket that does not exist, or no permission to write.",
        "Check spec.output.uri and the keys in the Secret of spec.output.credentialsSecretRef; then start a new run.",
    ),
    Reason.STORAGE_UNAVAILABLE: ReasonInfo(
        "Storage or hub could not be reached, or kept failing, after all retries.",
        "Check the endpoint and the network; the run retries by itself up to spec.maxRetries.",
    ),
    Reason.ACCELERATOR_MISSING: ReasonInfo(
        "The manifest asks for a GPU and the container sees none.",
        "Check the device plugin, the driver and the image's CUDA version on that node.",
    ),
    Reason.ACCELERATOR_OUT_OF_MEMORY: ReasonInfo(
        "Even a batch of 1 does not fit in the accelerator's memory, or is estimated not to by more than the error.",
        "Make the change that the message names, such as spec.training.gradientCheckpointing or an adapter, in "
        "the same run if it was refused before training, else in a new one. lmft estimate shows what a manifest needs.",
    ),
    Reason.OUT_OF_MEMORY: ReasonInfo(
        "The kernel killed the job because it used more memory than spec.resources.memory.",
        "Raise spec.resources.memory in a new run, with spec.resumeFrom to keep what was trained.",
    ),
    Reason.DIVERGED: ReasonInfo(
        "The loss became NaN or infinite; the last good checkpoint is kept.",
        "In a new run, lower spec.training.learningRate, add warm-up, or use precision BF16 or FP32; with "
        "spec.resumeFrom to keep what was trained.",
    ),
    Reason.HUNG: ReasonInfo(
        "Nothing moved for spec.training.watchdogSeconds (before the first step, for at least an hour): no step, no "
        "batch, no part of a file transferred; the stacks of all threads are in the pod's log.",
        "Look at the stacks; if a step is expected to take that long, raise watchdogSeconds in a new run, with "
        "spec.resumeFrom to keep what was trained.",
    ),
    Reason.DEADLINE_EXCEEDED: ReasonInfo(
        "All attempts together ran as long as spec.activeDeadlineSeconds, or the platform's policy, allows.",
        "Raise spec.activeDeadlineSeconds, as far as the platform's policy allows: the run resumes from its newest "
        "checkpoint.",
    ),
    Reason.RETRIES_EXHAUSTED: ReasonInfo(
        "Every attempt that spec.maxRetries allows failed, or too many in a row were interrupted before they could "
        "save a checkpoint; the message has the last error.",
        "Fix what the message names, then raise spec.maxRetries; the run resumes from its newest checkpoint.",
    ),
    Reason.INTERNAL_ERROR: ReasonInfo(
        "The job or the operator failed in an unexpected way.",
        "Look at the end of the pod's log in the message; please report it as a bug.",
    ),
}

_EXIT_REASONS: dict[int, Reason] = {
    ExitCode.DONE: Reason.COMPLETED,
    ExitCode.INVALID: Reason.INVALID_SPEC,
    ExitCode.REFUSED: Reason.STORAGE_ACCESS_DENIED,
    ExitCode.ACCELERATOR_MEMORY: Reason.ACCELERATOR_OUT_OF_MEMORY,
    ExitCode.DIVERGED: Reason.DIVERGED,
    ExitCode.UNAVAILABLE: Reason.STORAGE_UNAVAILABLE,
    ExitCode.HUNG: Reason.HUNG,
    ExitCode.PEERS: Reason.PEERS_MISSING,
    ExitCode.INTERRUPTED: Reason.INTERRUPTED,
}


def reason_of_exit(code: int) -> Reason:
    """The reason to assume from an exit code that came without a result message."""
    return _EXIT_REASONS.get(code, Reason.INTERNAL_ERROR)
