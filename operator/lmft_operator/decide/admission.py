"""Why the API server refuses a Job or a pod of ours, derived from its message, and how to fix that.

Quotas, LimitRanges, webhooks, policies, PriorityClasses and service accounts all answer with one sentence through the
API server. The HTTP status says little: a webhook chooses its own, and a webhook that is down causes a 500.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from lmft_api.reasons import REASONS, Reason
from lmft_api.schema.patterns import QUANTITY_PATTERN, matches
from lmft_api.schema.rules import amount

CANNOT_CREATE_JOB = "The Job cannot be created: "
CANNOT_CREATE_POD = "The pod cannot be created: "

_SPEC_FIELDS = {
    "cpu": "spec.resources.cpu",
    "memory": "spec.resources.memory",
    "ephemeral-storage": "spec.resources.ephemeralStorage",
}
_MAXIMA = {"cpu": "policy.maxCpu", "memory": "policy.maxMemory", "ephemeral-storage": "policy.maxEphemeralStorage"}
_AT_WORK = re.compile(
    r"failed calling webhook|admission webhook \"[^\"]*\" denied|ValidatingAdmissionPolicy|MutatingAdmissionPolicy"
    r"|admission plugin|failed calling admission",
    re.IGNORECASE,
)
_UNSET_QUOTA = re.compile(r"must specify (?P<names>.+)", re.DOTALL)
_UNSET = re.compile(r"\b(?:limits|requests)\.[a-z0-9./-]*[a-z0-9]|\b(?:cpu|memory|ephemeral-storage)\b(?= for:|,|;|$)")
_QUOTA = re.compile(r"exceeded quota|failed quota")
_SIDES = ("requested", "limited")
_LIMIT_RANGE = re.compile(
    r"(?:maximum|minimum) (?P<resource>[a-z-]+) usage per (?:Container|Pod) is \S+|"
    r"(?P<ratio>[a-z-]+) max limit to request ratio"
)
_GOING = "being deleted; the Job is created once"
_PASSING = ("because it is being terminated", "exist and are not this run's", _GOING)
"""A namespace that is being deleted, and names that are taken: not matters of admission."""
_FIXED = re.compile(
    r"spec\.(template\.spec\.restartPolicy|podFailurePolicy|podReplacementPolicy|backoffLimit|completions|parallelism"
    r"|completionMode|managedBy|successPolicy|ttlSecondsAfterFinished)\b"
)


@dataclass(frozen=True)
class Refusal:
    """Why a Job or a pod was refused.

    Attributes:
        reason: reason of the run's condition.
        remedy: what to do about it; empty where waiting is enough.
        changeable: whether an edited spec may be accepted, so that the attempt should not be kept.
    """

    reason: Reason
    remedy: str = ""
    changeable: bool = True


def at_work(words: str) -> bool:
    """Whether an API server error, whatever its status, comes from admission."""
    return _AT_WORK.search(words) is not None or _QUOTA.search(words) is not None


def refusal(words: str) -> Refusal:
    """Why an object was refused, from the API server's message."""
    if _QUOTA.search(words):
        return _quota(words)
    if any(passing in words for passing in _PASSING):
        return Refusal(Reason.PENDING, changeable=False)
    for pattern, remedy in _REMEDIES:
        if found := pattern.search(words):
            return Refusal(Reason.ADMISSION_FAILED, remedy.format(**_filled(found.groupdict())))
    if found := _LIMIT_RANGE.search(words):
        resource = found["resource"] or found["ratio"]
        field = _SPEC_FIELDS.get(resource, "spec.resources")
        remedy = (
            f"Set {field} within the namespace's LimitRange (kubectl describe limitrange), or have the LimitRange "
            "changed."
        )
        return Refusal(Reason.ADMISSION_FAILED, remedy)
    return Refusal(Reason.ADMISSION_FAILED, REASONS[Reason.ADMISSION_FAILED].remedy)


def name_in_deletion(names: Sequence[str]) -> str:
    """What to say when the names of a run's Job are those of Jobs that are being deleted: waiting is enough."""
    if len(names) == 1:
        return f"Job {names[0]} is {_GOING} it is gone."
    return f"Jobs {' and '.join(names)} are {_GOING} one is gone."


def changed_by_policies(words: str) -> bool:
    """Whether the API server calls a field of a Job invalid that no manifest can set: a policy has changed the Job."""
    return _FIXED.search(words) is not None


def explained(beginning: str, words: str) -> tuple[Reason, str]:
    """Reason and message of a run whose Job or pod was refused; ``beginning`` says which of them."""
    found = refusal(words)
    text = f"{beginning}{words}"
    return found.reason, f"{text.rstrip('. ')}. {found.remedy}" if found.remedy else text


def _quota(words: str) -> Refusal:
    """An exhausted quota is waited for; a quota that requires a request or limit is satisfied by setting it."""
    found = _UNSET_QUOTA.search(words)
    if found is None:
        if never := _never(words):
            remedy = f"The whole quota is smaller: request less in {', '.join(never)}, or have the quota raised."
            return Refusal(Reason.QUOTA_EXCEEDED, f"{remedy} {_BY_ITSELF}")
        return Refusal(Reason.QUOTA_EXCEEDED, REASONS[Reason.QUOTA_EXCEEDED].remedy, changeable=False)
    remedy = " ".join(_unset(name) for name in dict.fromkeys(_UNSET.findall(found["names"])))
    return Refusal(Reason.QUOTA_EXCEEDED, remedy or REASONS[Reason.QUOTA_EXCEEDED].remedy)


def _never(words: str) -> list[str]:
    """The fields that ask for more than the whole quota, so that waiting cannot help."""
    asked, most = (_amounts(found[1]) if (found := re.search(rf"{name}: (\S+)", words)) else {} for name in _SIDES)
    beyond = (name.rpartition(".")[2] for name, wanted in asked.items() if name in most and wanted > most[name])
    return list(dict.fromkeys(_SPEC_FIELDS[resource] for resource in beyond if resource in _SPEC_FIELDS))


def _amounts(text: str) -> dict[str, Decimal]:
    """Quantities by name, parsed from ``requests.cpu=1,requests.memory=2Gi``; unreadable ones are left out."""
    pairs = (part.rpartition("=") for part in text.rstrip(",").split(","))
    return {name: amount(value) for name, _, value in pairs if matches(QUANTITY_PATTERN, value)}


def _unset(name: str) -> str:
    """How to set a request or limit that a quota requires."""
    kind, _, resource = name.rpartition(".") if name in _SPEC_FIELDS else name.partition(".")
    field, most = _SPEC_FIELDS.get(resource), _MAXIMA.get(resource)
    if field is None:
        return f"The quota requires {name}, which runs do not set: remove it from the quota, or set it by a LimitRange."
    if name == "limits.cpu":
        # A manifest alone sets no CPU limit: without the policy's maximum nothing is throttled.
        return (
            f"The quota requires {name}: ask the platform team to set {most}, or a LimitRange with a default CPU limit."
        )
    if kind == "limits":
        return (
            f"The quota requires {name}: set {field}; or ask the platform team to set {most}, or a LimitRange's "
            "default."
        )
    return f"The quota requires {name}: set {field}, or ask the platform team to set job.resources."


def _filled(names: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value or "it" for name, value in names.items()}


_BY_ITSELF = "The run is retried automatically; its manifest may be changed meanwhile."
_REMEDIES = tuple(
    (re.compile(pattern), f"{remedy} {_BY_ITSELF}")
    for pattern, remedy in (
        (
            r"failed calling webhook \"(?P<name>[^\"]+)\"",
            'Have the webhook "{name}" restored, or its configuration removed or set to failurePolicy Ignore.',
        ),
        (
            r"admission webhook \"(?P<name>[^\"]+)\" denied",
            'Change what the webhook "{name}" objects to, or exempt this namespace from it.',
        ),
        (
            r"ValidatingAdmissionPolicy '(?P<name>[^']+)'",
            'Change what the admission policy "{name}" objects to, or exempt this namespace from it.',
        ),
        (
            r"must be less than or equal to (?P<name>[a-z-]+) limit of",
            "Ask for less in spec.resources, or have the namespace's LimitRange changed, whose {name} limit is lower.",
        ),
        (
            r"no PriorityClass with name \"?(?P<name>[^ \"]+)\"? was found",
            'Change spec.podTemplate.priorityClassName, or create the PriorityClass "{name}".',
        ),
        (
            r"RuntimeClass(?:\.node\.k8s\.io)? \"?(?P<name>[^ \"]+)\"? not found",
            'Change spec.podTemplate.runtimeClassName, or create the RuntimeClass "{name}".',
        ),
        (
            r"serviceaccount \"(?P<name>[^\"]+)\" not found",
            'Create the ServiceAccount "{name}" in this namespace, or change spec.podTemplate.serviceAccountName.',
        ),
        (
            r"violates PodSecurity \"(?P<name>[^\"]+)\"",
            'Check the namespace\'s Pod Security level: pods of runs meet "restricted" unless a policy changes them.',
        ),
        (
            r"unable to validate against any security context constraint",
            "On OpenShift, set the chart's job.userID to null, so that the namespace's own range is used.",
        ),
        (
            r"the API server has not answered in (?P<name>time)",
            "A webhook on Jobs may hang: check the cluster's webhook configurations.",
        ),
        (
            r"A policy of the (?P<name>cluster) has changed the Job",
            "Configure mutating webhooks and policies not to change that in Jobs labelled lmfinetune.dev/run-uid.",
        ),
        (
            r"cannot (?P<name>create) resource",
            "The operator lacks a permission: check the chart's roles (rbac.create).",
        ),
    )
)
