"""Whether a cluster has room for more pods of a run: by its nodes, and by the pods on those that could take one."""

import logging
import time
from collections.abc import Callable

from lmft_operator.cluster.client import Cluster
from lmft_operator.cluster.errors import ClusterError, ForbiddenError
from lmft_operator.domain.plan import PodRequirements
from lmft_operator.domain.room import NodeFacts, eligible, more_pods, node_facts, requested

logger = logging.getLogger(__name__)
KEPT_SECONDS = 60.0
"""How long a list of nodes is used again, for other runs."""
REFUSED_SECONDS = 600.0
"""How long a refused list is not tried again."""
MOST_NODES = 64
"""Most nodes whose pods are listed at a look."""
PAGE = 100


class SpareNodes:
    """Counts the pods of a run that fit beside what runs.

    Args:
        cluster: client of the API server.
        clock: monotonic seconds.
    """

    def __init__(self, cluster: Cluster, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster, self._clock = cluster, clock
        self._nodes: tuple[NodeFacts, ...] = ()
        self._until = 0.0

    async def room_for(self, pods: int, needs: PodRequirements) -> int:
        """How many pods fit, counted up to ``pods``; 0 where nodes or pods may not be listed, or the lists failed."""
        try:
            found = 0
            for node in [node for node in await self._listed() if eligible(node, needs)][:MOST_NODES]:
                there = [requested(pod) async for page in self._cluster.occupants(node.name) for pod in page]
                found += more_pods(node, there, needs)
                if found >= pods:
                    return pods
        except ForbiddenError as problem:
            logger.info("runs do not grow again by themselves (spec.resources.elastic): %s", problem)
            self._nodes, self._until = (), self._clock() + REFUSED_SECONDS
            return 0
        except ClusterError as problem:
            logger.warning("room for more nodes was not looked for: %s", problem)
            return 0
        return found

    async def _listed(self) -> tuple[NodeFacts, ...]:
        if self._clock() >= self._until:
            self._nodes = tuple(
                [node_facts(body) async for page, _ in self._cluster.pages("nodes", None, PAGE) for body in page]
            )
            self._until = self._clock() + KEPT_SECONDS
        return self._nodes
