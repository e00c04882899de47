"""What an attempt to be started needs: its number and stage, and what its pod requires of a node."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lmft_api.spec.pod import Toleration
from lmft_api.wire.run_file import Stage


@dataclass(frozen=True)
class PodRequirements:
    """What a pod requires of a node.

    Attributes:
        requests: quantities by resource.
        selector: node labels that are required.
        tolerations: taints that are tolerated.
    """

    requests: Mapping[str, str] = field(default_factory=dict)
    selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Toleration] = ()


@dataclass(frozen=True)
class Plan:
    """An attempt to be started."""

    name: str
    attempt: int
    stage: Stage
    gpus: int
    resume_model_uri: str | None = None
    nodes: int = 1
    """Pods that train together; ``gpus`` are those of each."""
