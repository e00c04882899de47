"""What an attempt of several pods needs beside its Job: a Service by which they meet, a policy that isolates them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lmft_api.wire import ranks
from lmft_api.wire.run_file import ATTEMPT_LABEL, INDEX_LABEL, NODES_LABEL, RUN_LABEL

_PORT = ranks.DEFAULT_MASTER_PORT
_PORTS = (("rendezvous", _PORT), ("heartbeat", ranks.heartbeat_port(_PORT)), ("probe", ranks.probe_port(_PORT)))


def service_name(uid: str, attempt: int) -> str:
    """Name of an attempt's Service and policy; it begins with a letter, as older clusters demand, and never changes."""
    return f"lmft-{uid[:8]}-{attempt}"


def service(job: dict[str, Any]) -> dict[str, Any]:
    """The headless Service of an Indexed Job of ours; it has the Job's owner, for it is made before the Job.

    Pods are published before they are ready: they meet in order to become so. It outlives a suspension of the Job.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(job),
        "spec": {
            "clusterIP": "None",
            "selector": _selected(job),
            "publishNotReadyAddresses": True,
            "ports": [{"name": name, "port": port, "protocol": "TCP"} for name, port in _PORTS],
        },
    }


def policy(job: dict[str, Any]) -> dict[str, Any]:
    """The NetworkPolicy of an Indexed Job of ours: its pods accept connections from each other alone.

    They check nobody's identity, and which ports they choose is not known beforehand.
    """
    pods = {"podSelector": {"matchLabels": _selected(job)}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(job),
        "spec": pods | {"policyTypes": ["Ingress"], "ingress": [{"from": [pods]}]},
    }


def _selected(job: dict[str, Any]) -> dict[str, str]:
    """Labels of the pods of the attempt, and of no others."""
    return {label: job["metadata"]["labels"][label] for label in (RUN_LABEL, ATTEMPT_LABEL)}


def _metadata(job: dict[str, Any]) -> dict[str, Any]:
    metadata = job["metadata"]
    manager = "app.kubernetes.io/managed-by"
    return {
        "name": job["spec"]["template"]["spec"]["subdomain"],
        "namespace": metadata["namespace"],
        "labels": _selected(job) | {manager: metadata["labels"][manager]},
        "ownerReferences": metadata["ownerReferences"],
    }


def spread(job: dict[str, Any], name: str, service: str, nodes: int, per_node: int, rendezvous: int) -> None:
    """Make a Job of one pod one of ``nodes`` pods that find the first of them as ``<job>-0.<service>``.

    Each waits ``rendezvous`` seconds for the others.
    """
    template = job["spec"]["template"]
    job["spec"] |= {"completionMode": "Indexed", "completions": nodes, "parallelism": nodes}
    for metadata in (job["metadata"], template["metadata"]):
        metadata["labels"] = metadata["labels"] | {NODES_LABEL: str(nodes)}
    template["spec"]["subdomain"] = service
    address = f"{name}-0.{service}"
    meet(job, nodes, per_node, address)
    fixed = {
        ranks.NODES_VARIABLE: nodes,
        ranks.MASTER_ADDR: address,
        ranks.MASTER_PORT: _PORT,
        ranks.RENDEZVOUS_VARIABLE: rendezvous,
    }
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
