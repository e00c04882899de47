"""This process among the processes of a run."""

from collections.abc import Mapping
from dataclasses import dataclass

_VARIABLES = {
    "rank": "RANK",
    "size": "WORLD_SIZE",
    "local_rank": "LOCAL_RANK",
    "local_size": "LOCAL_WORLD_SIZE",
    "node": "GROUP_RANK",
}


@dataclass(frozen=True)
class World:
    """The processes of a run, and which of them this is.

    Attributes:
        rank: number of this process in the run, from 0.
        size: number of processes in the run.
        local_rank: number of this process in its pod, from 0; also of its GPU.
        local_size: number of processes in its pod.
        node: number of its pod, from 0.
        nodes: number of pods.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    node: int
    nodes: int

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "World":
        """The world of the variables that torchrun sets; alone without them.

        Raises:
            ValueError: a variable is missing or is not a number, or they contradict each other.
        """
        if "RANK" not in environ and "WORLD_SIZE" not in environ:
            return ALONE
        missing = [name for name in _VARIABLES.values() if name not in environ]
        if missing:
            raise ValueError(
                f"{', '.join(missing)}: not set, although RANK or WORLD_SIZE is; torchrun sets all of them"
            )
        wrong = [name for name in _VARIABLES.values() if not environ[name].isdecimal()]
        if wrong:
            raise ValueError("; ".join(f"{name}: {environ[name]!r} is not a number" for name in wrong))
        numbers = {field: int(environ[name]) for field, name in _VARIABLES.items()}
        return cls(**numbers, nodes=max(1, numbers["size"] // max(1, numbers["local_size"])))

    def __post_init__(self) -> None:
        consistent = (
            0 <= self.rank < self.size
            and 0 <= self.local_rank < self.local_size
            and self.size == self.nodes * self.local_size
            and self.rank == self.node * self.local_size + self.local_rank
        )
        if not consistent:
            raise ValueError(f"the ranks contradict each other: {self}")

    @property
    def main(self) -> bool:
        """Whether this is rank 0, which alone writes what there is once for a run."""
        return self.rank == 0

    @property
    def leads_node(self) -> bool:
        """Whether this is the first process of its pod, which does what there is once for a pod."""
        return self.local_rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.size == 1


ALONE = World(rank=0, size=1, local_rank=0, local_size=1, node=0, nodes=1)
