"""Requests and limits of the pod of an attempt: the manifest, the platform's defaults, the policy's maxima.

Defaults set requests only: a limit that nobody chose would end runs that the node has room for. A run's limits come
from its manifest, else from ``policy``; without either there is no limit.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from lmft_api.schema.rules import amount
from lmft_api.spec.pod import Resources
from lmft_operator.settings import JobSettings, PolicyRules


@dataclass(frozen=True)
class Demand:
    """Resource quantities of a pod.

    Attributes:
        requests: by resource, of the container.
        limits: by resource, of the container.
        scratch: ``sizeLimit`` of /tmp and of /cache each; None for none.
        shared_memory: size of /dev/shm.
    """

    requests: dict[str, str]
    limits: dict[str, str]
    scratch: str | None
    shared_memory: str


def demand(wanted: Resources, gpus: int, job: JobSettings, rules: PolicyRules) -> Demand:
    """Requests and limits of a pod with ``gpus`` GPUs.

    Args:
        wanted: ``spec.resources``.
        gpus: GPUs of the pod; a preparation has none.
        job: the platform's defaults.
        rules: policy of the run's namespace, whose maxima a default never exceeds.
    """
    default = job.resources
    gpu = {wanted.gpu_resource_name or job.gpu_resource_name: str(gpus)} if gpus else {}
    requests = {
        "cpu": wanted.cpu or _at_most(default.cpu, rules.max_cpu),
        "memory": wanted.memory or _at_most(default.memory, rules.max_memory),
        "ephemeral-storage": wanted.ephemeral_storage
        or _at_most(default.ephemeral_storage, rules.max_ephemeral_storage),
    }
    limits = {
        # A CPU limit only throttles, so none is set unless the platform wants one.
        "cpu": rules.max_cpu and (wanted.cpu or rules.max_cpu),
        "memory": wanted.memory or rules.max_memory,
        "ephemeral-storage": wanted.ephemeral_storage or rules.max_ephemeral_storage,
    }
    return Demand(
        requests=_given(requests) | gpu,
        limits=_given(limits) | gpu,
        scratch=limits["ephemeral-storage"],
        shared_memory=wanted.shared_memory or _at_most(default.shared_memory, rules.max_shared_memory) or "",
    )


def gpu_memory(wanted: Resources, selector: Mapping[str, str], job: JobSettings) -> str | None:
    """Memory of the GPU of a run by the platform's table; None where it is not listed, or the run has none.

    Args:
        wanted: ``spec.resources``.
        selector: node labels that the pod requires; with several listed ones the least memory counts.
        job: the platform's settings.
    """
    if not wanted.gpus_per_node:
        return None
    labelled = [job.gpu_memory[key] for key in (f"{n}={v}" for n, v in selector.items()) if key in job.gpu_memory]
    if labelled:
        return min(labelled, key=amount)
    return job.gpu_memory.get(wanted.gpu_resource_name or job.gpu_resource_name)


def _at_most(quantity: str | None, most: str | None) -> str | None:
    if quantity is None or most is None:
        return quantity
    return min(quantity, most, key=amount)


def _given(quantities: dict[str, str | None]) -> dict[str, str]:
    return {name: quantity for name, quantity in quantities.items() if quantity is not None}
