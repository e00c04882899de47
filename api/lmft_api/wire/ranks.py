"""Several processes in an attempt: what operator, a pod's first process and its ranks agree on.

A rank is a process that trains; a pod has one for each GPU, or one on the CPU. The names are torchrun's where it has
them, so that a user's own ``torchrun train.py`` runs in the same pods.
"""

from collections.abc import Mapping

RANK = "RANK"
"""Number of the process among all of the attempt, from 0."""
WORLD_SIZE = "WORLD_SIZE"
"""Processes of the attempt."""
LOCAL_RANK = "LOCAL_RANK"
"""Number of the process in its pod, from 0: its GPU."""
LOCAL_WORLD_SIZE = "LOCAL_WORLD_SIZE"
"""Processes of the pod."""
GROUP_RANK = "GROUP_RANK"
"""Number of the pod, from 0."""
MASTER_ADDR = "MASTER_ADDR"
"""Where the processes meet: the name of the first pod."""
MASTER_PORT = "MASTER_PORT"
"""Port of the meeting, torch's; the next two are :func:`heartbeat_port` and :func:`probe_port`."""

NODES_VARIABLE = "LMFT_NODES"
"""Pods of the attempt."""
INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
"""Number of the pod, set by Kubernetes in the pods of an Indexed Job."""
POD_NAME_VARIABLE = "LMFT_POD_NAME"
"""The pod's own name, for messages."""
NODE_NAME_VARIABLE = "LMFT_NODE_NAME"
"""Name of its node, for messages."""
RENDEZVOUS_VARIABLE = "LMFT_RENDEZVOUS_SECONDS"
"""Replaces :data:`RENDEZVOUS_SECONDS`."""

TORCHRUN_NODE_RANK = "PET_NODE_RANK"
"""Number of the pod, as a bare ``torchrun`` reads it."""

DEFAULT_MASTER_PORT = 29500
RENDEZVOUS_SECONDS = 600.0
"""Seconds from the start of its container for which a pod waits for the others."""
PATIENT_RENDEZVOUS_SECONDS = 86_400
"""The same for ranks whose pods are known to have come: another may still fetch a model."""
RANK_FAILED_SECONDS = 3.0
"""Seconds from the failure of a rank until the others of the attempt are killed: time for a cause of their own."""


def heartbeat_port(master_port: int) -> int:
    """Port at which the first pod hears from the first processes of the others."""
    return master_port + 1


def probe_port(master_port: int) -> int:
    """Port of the first pod that stands for all others: gloo and NCCL open ports that nobody knows beforehand."""
    return master_port + 2


def torchrun_variables(nodes: int, index: int, per_node: int, address: str, port: int) -> dict[str, str]:
    """What ``torchrun``, called without options, takes its options from.

    Args:
        nodes: pods.
        index: number of this one, from 0.
        per_node: processes in a pod.
        address: name of the first pod.
        port: where they meet.
    """
    return {
        "PET_NNODES": str(nodes),
        TORCHRUN_NODE_RANK: str(index),
        "PET_NPROC_PER_NODE": str(per_node),
        "PET_MASTER_ADDR": address,
        "PET_MASTER_PORT": str(port),
    }


def rank_variables(nodes: int, index: int, per_node: int, local: int, address: str, port: int) -> dict[str, str]:
    """The environment of a rank, as torchrun would set it; :func:`torchrun_variables` for a torchrun of its own."""
    return {
        RANK: str(index * per_node + local),
        WORLD_SIZE: str(nodes * per_node),
        LOCAL_RANK: str(local),
        LOCAL_WORLD_SIZE: str(per_node),
        GROUP_RANK: str(index),
        MASTER_ADDR: address,
        MASTER_PORT: str(port),
        **torchrun_variables(nodes, index, per_node, address, port),
    }


def is_rank(environment: Mapping[str, str]) -> bool:
    """Whether this process is one of several, started by the pod's first process or by torchrun."""
    return RANK in environment and environment.get(WORLD_SIZE, "1") != "1"
