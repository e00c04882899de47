"""What an attempt to start needs: its number and stage, and what its pod asks of a node."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lmft_api.spec.pod import Toleration
from lmft_api.wire.run_file import (
    Stage,
)


@dataclass(frozen=True)
class Wishes:
    """What a pod asks of a node.

    Attributes:
        requests: quantities by resource.
        selector: labels that the node must have.
        tolerations: taints that the pod puts up with.
    """

    requests: Mapping[str, str] = field(default_factory=dict)
    selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Toleration] = ()


@dataclass(frozen=True)
class Plan:
    """An attempt to start."""

    name: str
    attempt: int
    stage: Stage
    gpus: int
    resume_model_uri: str | None = None
