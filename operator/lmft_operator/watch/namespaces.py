"""Which namespaces are ready for decisions: those of a given list may each be created and deleted at any time."""

import logging
from collections.abc import Sequence

from lmft_operator.process import metrics

logger = logging.getLogger(__name__)


class Served:
    """The namespaces whose runs, Jobs and Pods have all been listed and can still be listed.

    Runs in a namespace that is deleted, or created again and not listed yet, must wait: their Jobs are unknown.

    Args:
        names: the configured namespaces; empty serves the whole cluster, which is ready from the start.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(dict.fromkeys(names))
        self._known: set[str] = set()
        self._said: dict[str, str] = {}
        metrics.UNSERVED.set_function(lambda: len(self.names) - len(self._known))

    def knows(self, namespace: str) -> bool:
        """Whether decisions on runs of a namespace are possible."""
        return not self.names or namespace in self._known

    def listed(self, namespace: str) -> bool:
        """Record that a namespace is fully listed; returns whether it was not before."""
        if self.knows(namespace):
            return False
        logger.info("serving namespace %s", namespace)
        self._known.add(namespace)
        self._said.pop(namespace, None)
        return True

    def refused(self, namespace: str, why: str) -> None:
        """Record that a namespace cannot be listed: it, or the right to list it, does not exist."""
        self._known.discard(namespace)
        if namespace not in self._said:
            logger.warning(
                "not serving namespace %s until it exists and helm upgrade has created the operator's Role in it: %s",
                namespace,
                why,
            )
        self._said[namespace] = why
