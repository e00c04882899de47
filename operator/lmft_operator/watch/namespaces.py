"""Which namespaces may be decided on: with a list of them, each can be created and deleted on its own."""

import logging
from collections.abc import Sequence

from lmft_operator.process import metrics

logger = logging.getLogger(__name__)


class Served:
    """The namespaces whose runs, Jobs and Pods have all been listed, and may be listed still.

    A run of a namespace that is away, or back and not listed yet, must not be decided on: its Jobs are not known.

    Args:
        names: the list; empty serves the whole cluster, which is known as soon as anything is.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(dict.fromkeys(names))
        self._known: set[str] = set()
        self._said: dict[str, str] = {}
        metrics.UNSERVED.set_function(lambda: len(self.names) - len(self._known))

    def knows(self, namespace: str) -> bool:
        """Whether runs of a namespace may be decided on."""
        return not self.names or namespace in self._known

    def listed(self, namespace: str) -> bool:
        """All of it is known; whether that is news."""
        if self.knows(namespace):
            return False
        logger.info("serving namespace %s", namespace)
        self._known.add(namespace)
        self._said.pop(namespace, None)
        return True

    def refused(self, namespace: str, why: str) -> None:
        """It cannot be listed: it is gone, or the rights in it are."""
        self._known.discard(namespace)
        if namespace not in self._said:
            logger.warning(
                "not serving namespace %s until it exists and helm upgrade has created the operator's Role in it: %s",
                namespace,
                why,
            )
        self._said[namespace] = why
