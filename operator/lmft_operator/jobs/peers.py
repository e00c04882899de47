"""What an attempt of several pods needs beside its Job: names that fit, and a headless Service by which they meet."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lmft_api.wire import ranks
from lmft_api.wire.run_file import ATTEMPT_LABEL, INDEX_LABEL, NODES_LABEL, RUN_LABEL

_PORT = ranks.DEFAULT_MASTER_PORT
_PORTS = (("rendezvous", _PORT), ("heartbeat", ranks.heartbeat_port(_PORT)), ("probe", ranks.probe_port(_PORT)))


def service_name(uid: str, attempt: int) -> str:
    """Name of an attempt's Service: it begins with a letter, as older clusters demand, and is the same at each look."""
    return f"lmft-{uid[:8]}-{attempt}"


def service(job: dict[str, Any]) -> dict[str, Any]:
    """The headless Service of an Indexed Job of ours; it has the Job's owner, for it is made before the Job.

    Pods are published before they are ready: they meet in order to become so. It outlives a suspension of the Job.
    """
    metadata = job["metadata"]
    labels = metadata["labels"]
    selected = {label: labels[label] for label in (RUN_LABEL, ATTEMPT_LABEL)}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": job["spec"]["template"]["spec"]["subdomain"],
            "namespace": metadata["namespace"],
            "labels": selected | {"app.kubernetes.io/managed-by": labels["app.kubernetes.io/managed-by"]},
            "ownerReferences": metadata["ownerReferences"],
        },
        "spec": {
            "clusterIP": "None",
            "selector": selected,
            "publishNotReadyAddresses": True,
            "ports": [{"name": name, "port": port, "protocol": "TCP"} for name, port in _PORTS],
        },
    }


def spread(job: dict[str, Any], name: str, service: str, nodes: int, per_node: int) -> None:
    """Make a Job of one pod one of ``nodes`` pods that find the first of them as ``<job>-0.<service>``."""
    template = job["spec"]["template"]
    job["spec"] |= {"completionMode": "Indexed", "completions": nodes, "parallelism": nodes}
    for metadata in (job["metadata"], template["metadata"]):
        metadata["labels"] = metadata["labels"] | {NODES_LABEL: str(nodes)}
    template["spec"]["subdomain"] = service
    address = f"{name}-0.{service}"
    meet(job, nodes, per_node, address)
    fixed = {ranks.NODES_VARIABLE: nodes, ranks.MASTER_ADDR: address, ranks.MASTER_PORT: _PORT}
    fields = {
        ranks.POD_NAME_VARIABLE: "metadata.name",
        ranks.NODE_NAME_VARIABLE: "spec.nodeName",
        ranks.TORCHRUN_NODE_RANK: f"metadata.annotations['{INDEX_LABEL}']",
    }
    _set(job, fixed, fields)


def meet(job: dict[str, Any], nodes: int, per_node: int, address: str) -> None:
    """Set what a bare ``torchrun train.py`` reads, for an image with an entry of its own; the number of a pod apart."""
    _set(job, ranks.torchrun_variables(nodes, 0, per_node, address, _PORT))


def _set(job: dict[str, Any], values: Mapping[str, object], fields: Mapping[str, str] = MappingProxyType({})) -> None:
    """Set variables in the place of what a manifest says of them."""
    for container in job["spec"]["template"]["spec"]["containers"]:
        kept = [variable for variable in container["env"] if variable["name"] not in {*values, *fields}]
        container["env"] = [
            *kept,
            *({"name": variable, "value": str(value)} for variable, value in values.items()),
            *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()),
        ]
