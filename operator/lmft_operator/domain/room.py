"""How many more pods of a run the nodes of a cluster could take now: as the scheduler counts, as far as it goes here.

Compared are a node's state, labels and taints, and what it has of each resource that its pods do not request. The
scheduler knows more, such as where a volume is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from lmft_api.schema.rules import amount
from lmft_api.spec.pod import TaintEffect, Toleration, TolerationOperator
from lmft_operator.domain.plan import PodRequirements
from lmft_operator.domain.shapes import UNREAD

Quantities = dict[str, Fraction]
PODS = "pods"
_ALL = Fraction(10**30)
"""More than any node has: what cannot be read counts as all of it."""
_CORDONED = ("node.kubernetes.io/unschedulable", "", TaintEffect.NO_SCHEDULE.value)
"""How the scheduler takes a cordoned node, whose taint of this name may come later."""
_REPELS = frozenset({TaintEffect.NO_SCHEDULE.value, TaintEffect.NO_EXECUTE.value})


@dataclass(frozen=True)
class NodeFacts:
    """A node. ``taints``: key, value and effect of those that keep pods away; ``allocatable``: by resource."""

    name: str
    ready: bool
    labels: Mapping[str, str]
    taints: tuple[tuple[str, str, str], ...]
    allocatable: Mapping[str, Fraction]


def node_facts(body: Mapping[str, Any]) -> NodeFacts:
    """Facts of a Node in its shape."""
    metadata, spec, status = body["metadata"], body.get("spec", {}), body.get("status", {})
    ready = any(c["type"] == "Ready" and c.get("status") == "True" for c in status.get("conditions", ()))
    taints = [(t.get("key", ""), t.get("value", ""), t.get("effect", "")) for t in spec.get("taints", ())]
    if spec.get("unschedulable", False):
        taints.append(_CORDONED)
    return NodeFacts(
        name=metadata["name"],
        ready=ready,
        labels=body.get("labels", {}),
        taints=tuple(taint for taint in taints if taint[2] in _REPELS),
        allocatable=_quantities(status.get("allocatable", {}), Fraction(0)),
    )


def requested(body: Mapping[str, Any]) -> Quantities:
    """What the scheduler counts for a Pod, in the shape of an occupant, itself as one of the node's pods included.

    Its containers and sidecars, or its largest init container where that is more; and its overhead.
    """
    spec = body.get("spec", {})
    total: Quantities = {PODS: Fraction(1)}
    if UNREAD in body:
        return {PODS: _ALL}
    for container in (*spec.get("containers", ()), *filter(_sidecar, spec.get("initContainers", ()))):
        _add(total, _requests(container))
    for container in spec.get("initContainers", ()):
        for name, quantity in _requests(container).items():
            total[name] = max(total.get(name, Fraction(0)), quantity)
    _add(total, _quantities(spec.get("overhead", {})))
    return total


def eligible(node: NodeFacts, needs: PodRequirements) -> bool:
    """Whether a node could take a pod of the run if it were empty."""
    return (
        node.ready
        and all(node.labels.get(name) == value for name, value in needs.selector.items())
        and all(any(_tolerates(each, taint) for each in needs.tolerations) for taint in node.taints)
        and more_pods(node, (), needs) > 0
    )


def more_pods(node: NodeFacts, pods: Iterable[Quantities], needs: PodRequirements) -> int:
    """How many pods of the run fit beside the pods that a node has."""
    used: Quantities = {}
    for pod in pods:
        _add(used, pod)
    wants = {name: quantity for name, quantity in _quantities(needs.requests).items() if quantity > 0}
    zero = Fraction(0)
    fitting = (
        (node.allocatable.get(name, zero) - used.get(name, zero)) // quantity
        for name, quantity in (wants | {PODS: Fraction(1)}).items()
    )
    return max(0, int(min(fitting)))


def _tolerates(toleration: Toleration, taint: tuple[str, str, str]) -> bool:
    key, value, effect = taint
    if toleration.effect is not None and toleration.effect != effect:
        return False
    if toleration.key is not None and toleration.key != key:
        return False
    return toleration.operator == TolerationOperator.EXISTS or (toleration.value or "") == value


def _sidecar(container: Mapping[str, Any]) -> bool:
    return container.get("restartPolicy") == "Always"


def _requests(container: Mapping[str, Any]) -> Quantities:
    return _quantities(container.get("resources", {}).get("requests", {}))


def _quantities(values: Mapping[str, Any], otherwise: Fraction = _ALL) -> Quantities:
    """Numbers by resource; ``otherwise`` where one cannot be read."""
    return {name: _number(str(quantity), otherwise) for name, quantity in values.items()}


def _number(quantity: str, otherwise: Fraction) -> Fraction:
    try:
        return Fraction(amount(quantity))
    except ValueError:
        return otherwise  # such as 1e3, which people hardly write


def _add(total: Quantities, more: Quantities) -> None:
    for name, quantity in more.items():
        total[name] = total.get(name, Fraction(0)) + quantity
