"""Why no node can take a pod: the scheduler's message translated into fields of the manifest, with how to fix it."""

import re

from lmft_api.text.wording import sentence
from lmft_operator.domain.plan import PodRequirements

_COUNTED = re.compile(r"0/(?P<nodes>\d+) nodes are available: (?P<rest>.*)", re.DOTALL)
# What follows the reasons: preemption and dynamic resources, which no field of the manifest concerns.
_TAIL = re.compile(r"\s*(?:\bpreemption: |\bno new claims to deallocate\b|\bstill not schedulable\b).*", re.DOTALL)
_CLAUSE = re.compile(r"(?P<count>\d+) (?P<text>.+?)(?=, \d+ |\.?\s*$)", re.DOTALL)
_TAINT = re.compile(r"node\(s\) had (?:untolerated )?taints?(?:\(s\))?(?P<names>.*)", re.DOTALL)
_NAMED_TAINT = re.compile(r"\{(?P<key>[^:{}]+): ?(?P<value>[^{}]*)\}")
_CLAIM = re.compile(r'persistentvolumeclaim "?(?P<name>[^" ]+)"? (?:not found|is being deleted)')
_FIELDS = {
    "cpu": "spec.resources.cpu",
    "memory": "spec.resources.memory",
    "ephemeral-storage": "spec.resources.ephemeralStorage",
}


def explain(message: str, requirements: PodRequirements) -> str:
    """The scheduler's message in plain words; parts that are not recognized are kept as they are."""
    message = _TAIL.sub("", message)
    counted = _COUNTED.match(message)
    clauses = [(int(c["count"]), c["text"]) for c in _CLAUSE.finditer(counted["rest"])] if counted else []
    if counted is None or not clauses:
        return " ".join([sentence(message), *_claim_hint(message)])
    nodes = int(counted["nodes"])
    said = ", ".join(f"{count} {_described(text, requirements)}" for count, text in clauses)
    whole = (
        f"None of {nodes} nodes can take the pod: {said}."
        if nodes != 1
        else f"The one node cannot take the pod: {said}."
    )
    hints = dict.fromkeys(hint for _, text in clauses for hint in _hints(text, requirements))
    return " ".join([whole, *hints])


def _described(text: str, requirements: PodRequirements) -> str:
    if text.startswith("Insufficient "):
        resource = text.removeprefix("Insufficient ")
        amount = requirements.requests.get(resource)
        return f"without {amount} of {resource} free" if amount else f"without enough {resource} free"
    if taint := _TAINT.fullmatch(text):
        named = [_equation(t["key"], t["value"]) for t in _NAMED_TAINT.finditer(taint["names"])]
        return " ".join(["tainted", *named])
    if "node affinity/selector" in text:
        labels = ", ".join(_equation(key, value) for key, value in requirements.selector.items())
        return f"without the label{'s' * (len(requirements.selector) != 1)} {labels}" if labels else text
    if text == "node(s) were unschedulable":
        return "marked unschedulable (cordoned)"
    if text == "Too many pods":
        return "at the maximum number of pods"
    return text


def _hints(text: str, requirements: PodRequirements) -> list[str]:
    if text.startswith("Insufficient "):
        resource = text.removeprefix("Insufficient ")
        if resource in _FIELDS:
            return [f"Lower {_FIELDS[resource]}, or wait until something else ends."]
        return [f"Wait until a {resource} is free; a node that has any says so in its status.allocatable."]
    if taint := _TAINT.fullmatch(text):
        tolerated = ", ".join(t.key or "everything" for t in requirements.tolerations)
        has = f"The manifest tolerates {tolerated} only" if tolerated else "No toleration in the manifest"
        named = _NAMED_TAINT.search(taint["names"])
        wanted = f" for {named['key']}" if named else ""
        return [f"{has}; add one{wanted} to spec.podTemplate.tolerations if the run may go there."]
    if "node affinity/selector" in text and requirements.selector:
        return ["Fix spec.podTemplate.nodeSelector, or label a node."]
    return []


def _claim_hint(message: str) -> list[str]:
    found = _CLAIM.search(message)
    return [f'Create the claim "{found["name"]}", or fix spec.podTemplate.volumes.'] if found else []


def _equation(key: str, value: str) -> str:
    return f"{key}={value}" if value else key
