"""What triggers a look: kopf's watches feed the cache and add keys to the queue, and that is all they do.

kopf does not retry event handlers, and handles events of a run, its Jobs and its Pods concurrently; so nothing is
decided here. Only ``on.event`` is used: it leaves no annotation, no finalizer and no status of kopf's on our objects.
"""

import random
from collections.abc import Callable, Iterable
from typing import Any

import kopf

from lmft_api import GROUP, PLURAL, VERSION
from lmft_api.wire.run_file import RUN_LABEL
from lmft_operator.cluster import access
from lmft_operator.cluster.client import PAGE
from lmft_operator.domain.facts import JsonObject, Key
from lmft_operator.settings import OperatorSettings
from lmft_operator.watch.cache import Cache

Sink = Callable[[JsonObject], Key | None]


class _NoEssence(kopf.DiffBaseStorage):
    """Disables kopf's record of the last handled state: nothing here needs differences, and it saves a deep copy."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> Any:
        return {}

    def fetch(self, *, body: kopf.Body) -> Any:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: Any) -> None:
        """Nothing to store."""


def register(cache: Cache, enqueue: Callable[[Key], None]) -> kopf.OperatorRegistry:
    """kopf's handlers: one for each kind that is watched.

    Args:
        cache: receives the objects.
        enqueue: called with each run to look at.
    """
    registry = kopf.OperatorRegistry()

    kopf.on.login(registry=registry)(access.login)

    def route(seen: Sink, gone: Sink) -> Callable[..., Any]:
        # kopf runs plain functions in a thread pool; the cache belongs to the event loop.
        async def handle(event: JsonObject, **_: Any) -> None:
            key = (gone if event["type"] == "DELETED" else seen)(event["object"])
            if key is not None:
                enqueue(key)

        return handle

    def run_gone(body: JsonObject) -> Key | None:
        cache.run_gone(body)
        for waiting in cache.dependants(Key(body["metadata"]["namespace"], body["metadata"]["name"])):
            enqueue(waiting)
        return None

    def run_seen(body: JsonObject) -> Key | None:
        key = cache.run_seen(body)
        for waiting in cache.dependants(key) if key is not None else ():
            enqueue(waiting)
        return key

    def warning_gone(body: JsonObject) -> Key | None:
        return None

    kopf.on.event(GROUP, VERSION, PLURAL, registry=registry, id="runs")(route(run_seen, run_gone))
    kopf.on.event("batch", "v1", "jobs", registry=registry, id="jobs")(route(cache.job_seen, cache.job_gone))
    kopf.on.event("v1", "pods", registry=registry, id="pods")(route(cache.pod_seen, cache.pod_gone))
    kopf.on.event("v1", "events", registry=registry, id="warnings")(route(cache.warned, warning_gone))
    return registry


def kopf_settings(settings: OperatorSettings) -> kopf.OperatorSettings:
    """kopf's settings: our selectors and time-outs, and nothing written to our objects by kopf."""
    ours = kopf.OperatorSettings()
    ours.posting.enabled = False
    ours.peering.standalone = True
    ours.persistence.finalizer = f"{GROUP}/unused"
    ours.persistence.diffbase_storage = _NoEssence()
    ours.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    # With a list of namespaces kopf would list and watch all namespaces of the cluster, which our rights do not allow.
    ours.scanning.disabled = bool(settings.watch.namespaces)
    ours.networking.request_timeout = settings.api.request_timeout_seconds
    ours.networking.connect_timeout = settings.api.connect_timeout_seconds
    ours.networking.error_backoffs = _Endless()
    ours.watching.server_timeout = settings.watch.server_timeout_seconds
    ours.watching.connect_timeout = settings.api.connect_timeout_seconds
    ours.watching.chunk_size = PAGE
    ours.watching.label_selectors["batch", "v1", "jobs"] = RUN_LABEL
    ours.watching.label_selectors["v1", "pods"] = RUN_LABEL
    ours.watching.field_selectors["v1", "events"] = "type=Warning"
    ours.queueing.idle_timeout = 0.5  # a waiting worker for each object costs memory in a burst
    ours.queueing.exit_timeout = 1.0
    ours.process.ultimate_exiting_timeout = 9.0
    return ours


class _Endless:
    """Endless back-off delays with jitter: the API server may be down for any length of time."""

    def __iter__(self) -> Any:
        delay = 0.5
        while True:
            yield delay * random.uniform(0.75, 1.25)  # noqa: S311 - jitter, not security
            delay = min(delay * 2, 15.0)
