"""How an attempt ended: a pure function from a Job and its Pod to a verdict.

The result in the termination message says most; the exit code decides whether another attempt makes sense; what
Kubernetes did to the pod distinguishes an interruption from a failure.
"""

import re

from lmft_api.reasons import FAILURES, FINAL_EXIT_CODES, PEERS, REASONS, ExitCode, Reason, reason_of_exit
from lmft_api.text.redaction import redact
from lmft_api.text.shown import printable
from lmft_api.text.wording import sentence
from lmft_api.wire import result as messages
from lmft_operator.domain.facts import JobFacts, PodFacts
from lmft_operator.domain.verdict import OPEN, Kind, Verdict

MAX_WORDS = 1200
KILLED = 128 + 9
"""Exit code of a container that SIGKILL ended; the kernel's OOM killer reports a reason as well."""
EVICTED = "Evicted"
# The others only the operator may report: taken from a job, they would be retried at once and without end.
_JOBS_REASONS = (FAILURES | {Reason.INTERRUPTED}) - {Reason.DEADLINE_EXCEEDED, Reason.RETRIES_EXHAUSTED}
_TOLD = re.compile(
    r"(?i:(?<=secret)|(?<=token)|(?<=password)|(?<=authorization))(?!s\b)(?i:[_a-z]*[\"']?\s*[=:]\s*[\"']?(?:bearer\s+)?)[^\s,\"']+"
)
"""What looks like the value of a secret in a log; a job's own message has been through its own scrubber."""
_STARS = "***"


def judge(job: JobFacts | None, pod: PodFacts | None, now: float, *, begun: bool = False) -> Verdict:
    """The verdict on an attempt from its Job and its Pod; either may be missing.

    Args:
        job: None when it was deleted.
        pod: None when none was ever seen; ``gone`` when it no longer exists.
        now: UNIX seconds, used as end time where none was recorded.
        begun: whether the attempt is known to have run.
    """
    if job is not None and job.suspended and not job.finished and not _begun(pod, begun):
        return OPEN  # a queue controller has yet to admit it; earlier pods of the Job did nothing
    if pod is None:
        return _without_pod(job, now)
    if not pod.ended:
        return OPEN
    if pod.exit_code is None:
        return _without_container(job, pod, now)
    return _with_exit_code(pod, pod.exit_code, now)


def silent_since(job: JobFacts | None, pod: PodFacts | None, *, begun: bool = False) -> float | None:
    """Since when an open attempt has had no pod that could end it, UNIX seconds; None if it has one or waits for one.

    Its Job reports how it ended within moments, unless the Job's controller has lost track of it; then it never does.
    """
    if job is None or job.finished or (job.suspended and not _begun(pod, begun)):
        return None
    if pod is not None:
        return pod.gone_at if pod.gone else None
    if not begun and not job.failed_pods:
        return None  # a quota may keep it from making its pod indefinitely
    return job.touched or job.created


def _begun(pod: PodFacts | None, begun: bool) -> bool:
    return begun or (pod is not None and pod.started is not None)


def _without_pod(job: JobFacts | None, now: float) -> Verdict:
    if job is None:
        return Verdict(Kind.INTERRUPTED, Reason.INTERRUPTED, "The Job was deleted.", ended=now)
    if job.complete:
        return Verdict(
            Kind.UNREAD, Reason.COMPLETED, "The pod is gone, and its result was not read.", ended=job.ended or now
        )
    if job.failed:
        text = "The pod is gone and left no result" + (f": {job.message}" if job.message else ".")
        return Verdict(Kind.INTERRUPTED, Reason.INTERRUPTED, text, ended=job.ended or now)
    return OPEN


def _without_container(job: JobFacts | None, pod: PodFacts, now: float) -> Verdict:
    """Verdict on a pod that ended, or vanished, before its container was seen to end."""
    ended = pod.finished or (job.ended if job else None) or now
    if job is not None and job.complete:
        return Verdict(
            Kind.UNREAD,
            Reason.COMPLETED,
            "The pod is gone, and its result was not read.",
            started=pod.started,
            ended=ended,
        )
    if job is not None and not job.finished and not job.deleting and pod.gone and pod.deleted is None:
        return OPEN  # the Job controller has yet to decide
    if pod.disruption or pod.reason or pod.gone or pod.deleted is not None:
        words = _ending(pod) or ("The pod was deleted." if pod.gone else "The pod was stopped.")
        # An eviction is due to something the node lacks, which the scheduler knows: another node will do.
        itself = pod.reason == EVICTED or pod.gone or pod.deleted is not None or pod.started is not None
        cause = "" if itself else pod.reason
        text = f"The node's kubelet rejected the pod. {words}" if cause else words
        return Verdict(
            Kind.INTERRUPTED, Reason.INTERRUPTED, _sentence(text), started=pod.started, ended=ended, cause=cause
        )
    words = pod.init_failed or pod.message or "The pod failed."
    return Verdict(Kind.RETRY, Reason.INTERNAL_ERROR, _sentence(shown(words)), started=pod.started, ended=ended)


def _ending(pod: PodFacts) -> str:
    """Kubernetes' own message on why it ended a pod; empty when there is none."""
    words = pod.disruption or (f"{pod.reason}: {pod.message}".removesuffix(": ") if pod.reason else "")
    if pod.reason == EVICTED and (remedy := _storage_remedy(words)):
        return f"{sentence(words)} {remedy}"
    return words


def _storage_remedy(words: str) -> str:
    """What to do about an eviction for disk space, from kubelet's message; empty for any other eviction."""
    if 'EmptyDir volume "lmft-shm" exceeds' in words:
        return "Start a new run with a larger spec.resources.sharedMemory."
    if "ephemeral" not in words and "EmptyDir volume" not in words:
        return ""
    if "exceed" in words:
        return "Start a new run with a higher spec.resources.ephemeralStorage, as far as policy and namespace allow it."
    return "A new run with spec.resources.ephemeralStorage goes to a node that has as much, and is evicted last."


def _with_exit_code(pod: PodFacts, code: int, now: float) -> Verdict:
    ended = pod.finished or now
    result = messages.decode(pod.log_tail)

    def verdict(kind: Kind, reason: Reason, message: str) -> Verdict:
        return Verdict(kind, reason, message, exit_code=code, started=pod.started, ended=ended, result=result)

    if code == ExitCode.DONE:
        if result is None:
            flaw = messages.flaw(pod.log_tail)
            words = f"a result that cannot be read: {shown(flaw)}" if flaw else "no result"
            return verdict(Kind.UNREAD, Reason.COMPLETED, _sentence(f"The job succeeded but left {words}"))
        slips = messages.misspelt(pod.log_tail)
        note = f" (of the job's result, {shown(slips)})" if slips else ""
        return verdict(Kind.DONE, Reason.COMPLETED, shown(result.message) + note)
    silent = result is None and not pod.log_tail.strip()
    allowed = PEERS if code == ExitCode.PEERS else _JOBS_REASONS
    reason = result.reason if result and result.reason in allowed else _fallback(pod, code, silent)
    message = shown(result.message) if result and result.message else _explained(pod, code, reason)
    # kubelet and the control plane write a reason into a pod that they end; a container cannot.
    stopped = bool(pod.disruption or pod.reason) or pod.deleted is not None
    # Without a result the code may not be the job's: a container that is killed while runc starts it ends with 2.
    if code in FINAL_EXIT_CODES and not silent and not (stopped and result is None):
        return verdict(Kind.FINAL, reason, message)
    if code == ExitCode.INTERRUPTED or stopped or reason == Reason.INTERRUPTED:
        cause = _ending(pod) or (message if result else "The pod was stopped.")
        return verdict(Kind.INTERRUPTED, Reason.INTERRUPTED, _sentence(cause))
    return verdict(Kind.RETRY, reason, message)


def _fallback(pod: PodFacts, code: int, silent: bool) -> Reason:
    if pod.exit_reason == "OOMKilled":
        return Reason.OUT_OF_MEMORY
    if code == KILLED or (silent and code in FINAL_EXIT_CODES):
        return Reason.INTERNAL_ERROR
    return reason_of_exit(code)


def _explained(pod: PodFacts, code: int, reason: Reason) -> str:
    """Message for a pod without a result: the end of its log, the meaning of its exit code, and what to try."""
    cause, remedy = REASONS[reason].cause, REASONS[reason].remedy
    if code == KILLED and reason == Reason.INTERNAL_ERROR:
        cause = "Something on the node killed it (SIGKILL); the node does not report that memory ran out."
        remedy = "Look at the node's events and its kernel log."
    words = log_tail(pod.log_tail)
    text = f"The job exited with code {code} and left no result. {cause}"
    return " ".join(filter(None, [text, f"Last log lines: {words}" if words else "", remedy]))


def log_tail(log: str) -> str:
    """The last useful lines of a log, without control characters and secrets."""
    lines = [line.strip() for line in printable(log).splitlines() if line.strip()]
    return scrub(" | ".join(lines)[-MAX_WORDS:])


def shown(text: str) -> str:
    """A job's own message, made safe for a terminal."""
    return scrub(printable(text))


def scrub(text: str) -> str:
    """The text with everything that looks like a credential replaced by asterisks."""
    return _TOLD.sub(_STARS, redact(text, _STARS)[0])


def _sentence(text: str) -> str:
    return sentence(scrub(text))
