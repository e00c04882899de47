"""The process: settings, kopf in our own event loop, the queue, the HTTP servers, and an orderly shutdown."""

import asyncio
import gc
import json
import logging
import re
import resource
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import kopf
import uvloop

from lmft_api.status import SUCCEEDED
from lmft_operator.cluster import access, leader
from lmft_operator.cluster.client import Cluster
from lmft_operator.cluster.errors import ClusterError, RestoredError
from lmft_operator.cluster.leader import Elector, LeaseLostError
from lmft_operator.domain.facts import Key
from lmft_operator.process import logs, metrics
from lmft_operator.process.clock import Clock
from lmft_operator.process.health import Health
from lmft_operator.queue import WorkQueue
from lmft_operator.reconcile import Reconciler
from lmft_operator.reports.serve import Role, serve_reports
from lmft_operator.serving import http
from lmft_operator.serving.metrics import serve_metrics
from lmft_operator.serving.probes import Probes, Problem
from lmft_operator.settings import OperatorSettings, SettingsError, load
from lmft_operator.watch import handlers
from lmft_operator.watch.cache import Cache
from lmft_operator.watch.namespaces import Served
from lmft_operator.watch.resync import resync_forever, resync_until_done
from lmft_operator.watch.streams import Watches

logger = logging.getLogger(__name__)
Parts = dict[str, Coroutine[Any, Any, None]]
MAX_FILES = 65_536
DEFINITION_SECONDS = 2.0
"""Seconds between two checks for the CustomResourceDefinition."""
WATCHES_SECONDS = 10.0
"""Seconds for which the first lists wait for the watches to begin."""
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


def main() -> None:
    """Entry point: run until SIGTERM."""
    try:
        settings = load()
    except SettingsError as problem:
        sys.exit(f"lmft-operator: {problem}")
    logs.configure(settings.log_level)
    _raise_file_limit()
    # What is loaded by now lives as long as the process: exempt it from further garbage collection.
    gc.collect()
    gc.freeze()
    try:
        uvloop.run(run(settings))
    except RestoredError as problem:
        sys.exit(f"lmft-operator: {problem}")
    except LeaseLostError as problem:
        sys.exit(f"lmft-operator: {problem}; exiting: another operator may be the leader by now")


async def run(settings: OperatorSettings) -> None:
    """Run everything concurrently until a signal or until a part fails; then stop within seconds.

    Raises:
        LeaseLostError: another operator may be the leader by now.
    """
    clock = Clock()
    cluster = Cluster(settings.api, access.find(), clock.adjust)
    cache = Cache(clock)
    queue: WorkQueue[Key] = WorkQueue(lambda key: key.namespace)
    served = Served(settings.watch.namespaces)
    stopping, kopf_stop, kopf_ready, relisted = (asyncio.Event() for _ in range(4))

    def add(key: Key) -> None:
        if served.knows(key.namespace):
            queue.add(key)
        else:
            relisted.set()  # of a namespace that was created again: its lists give the rest

    reconciler = Reconciler(
        cluster,
        cache,
        settings,
        progress_ca=Authority(Path(settings.progress.ca_file)),
        enqueue=add,
        suspicious=relisted.set,
        clock=clock,
    )
    health = Health(settings.watch.stale_seconds)
    metrics.register_runs(lambda: _rows(cache))
    metrics.QUEUE_READY.set_function(lambda: len(queue))
    metrics.UNSEEN.set_function(lambda: len(cache.unseen))
    metrics.QUEUE_DELAYED.set_function(lambda: queue.delayed)
    servers = await _serve(settings, lambda: health.live(cache.unseen.values(), cluster.last_answer), health.ready)
    elector = _elector(settings, cluster, health)
    leading = elector.leading.is_set if elector else lambda: True
    role = Role(leading, lambda: health.synced, lambda: elector.leader if elector else None)

    async def look(key: Key) -> float | None:
        return await reconciler(key) if served.knows(key.namespace) else None

    compared = asyncio.Event()

    async def work() -> None:
        # Only a list shows what existed before the watches began, so the watches begin first.
        await watches.wait(WATCHES_SECONDS)
        relisted.clear()
        await resync_until_done(cluster, cache, served, add)
        health.synced = True
        compared.set()
        logger.info("%d runs; watching", len(cache.runs))
        for key in cache.runs:
            add(key)
        await queue.run(look, settings.api.workers)

    async def compare_again() -> None:
        # Not beside the first comparison: where that takes long, the API server is slow enough.
        await compared.wait()
        await resync_forever(cluster, cache, served, add, settings.watch.resync_seconds, relisted)

    watches = Watches(cluster, relisted.set)

    async def watching() -> None:
        # With a list of namespaces kopf reads the definitions only once: ours must exist by then.
        if await _defined(cluster, kopf_stop):
            await kopf.operator(
                registry=handlers.register(cache, add),
                settings=handlers.kopf_settings(settings),
                clusterwide=not served.names,
                namespaces=served.names,
                standalone=True,
                stop_flag=kopf_stop,
                ready_flag=kopf_ready,
            )

    def deciding() -> Parts:
        """The parts that run only in the leader."""
        watches.install()
        return {
            "kopf": watching(),
            "queue": work(),
            "resync": compare_again(),
        }

    parts: Parts = {}
    if settings.metrics.secure:
        parts["metrics"] = serve_metrics(settings, cluster)
    if settings.progress.url:
        limits = settings.connections.limits()
        parts["progress"] = serve_reports(settings.progress, limits, cluster, cache, reconciler.reported, role, clock)
    if elector is not None:
        parts["lease"] = elector.run()
    _on_signals(stopping)
    try:
        _start(health, parts)
        if elector is None or await _first(elector.leading, stopping, health):
            health.standby = None
            _start(health, deciding())
            signals = asyncio.create_task(_signals_again(kopf_ready, stopping))
            await _first(asyncio.Event(), stopping, health)
            signals.cancel()
        failed = [name for name, task in health.tasks.items() if task.done()]
        if failed:
            logger.error("%s has stopped; ending", ", ".join(failed))
    finally:
        # kopf reports any task still running at its end as one of its own that hangs: it is stopped last.
        ours = [task for name, task in health.tasks.items() if name != "kopf"]
        for task in ours:
            task.cancel()
        if ours:
            await asyncio.wait(ours, timeout=3.0)
        if elector is not None:
            await elector.release()
        for server in servers:
            await server.stop()
        kopf_stop.set()
        if "kopf" in health.tasks:
            await asyncio.wait([health.tasks["kopf"]], timeout=5.0)
        await cluster.close()
    for task in health.tasks.values():
        if task.done() and not task.cancelled() and (problem := task.exception()) is not None:
            raise problem


def _elector(settings: OperatorSettings, cluster: Cluster, health: Health) -> Elector | None:
    """The elector; None without a Lease, when this operator always decides."""
    if settings.leader.namespace is None:
        metrics.LEADER.set(1)
        return None
    elector = Elector(cluster, settings.leader, leader.identity(), leader.address(settings.progress.port))
    cluster.may_write = elector.holds
    health.standby = lambda: None if elector.read else "the Lease has not been read"
    return elector


async def _defined(cluster: Cluster, stop: asyncio.Event) -> bool:
    """Wait for the CustomResourceDefinition; False when the process ends before it exists."""
    said = ""
    while not stop.is_set():
        try:
            if await cluster.serves_runs():
                return True
            problem = "the API server does not know LMFineTunes yet: is the CRD installed?"
        except ClusterError as error:
            problem = str(error)
        if problem != said:
            said = problem
            logger.warning("not watching yet: %s", problem)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), DEFINITION_SECONDS)
    return False


def _start(health: Health, parts: Parts) -> None:
    health.tasks |= {name: asyncio.create_task(part, name=name) for name, part in parts.items()}


async def _first(event: asyncio.Event, stopping: asyncio.Event, health: Health) -> bool:
    """Wait for the event, a signal, or the end of a part; True if it was the event."""
    waits = [asyncio.create_task(each.wait()) for each in (event, stopping)]
    await asyncio.wait({*waits, *health.tasks.values()}, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    return event.is_set() and not stopping.is_set()


def _on_signals(stopping: asyncio.Event) -> None:
    def stop() -> None:
        logger.info("stopping")
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)


async def _signals_again(kopf_ready: asyncio.Event, stopping: asyncio.Event) -> None:
    """Install our signal handlers again after kopf has installed its own at its start."""
    await kopf_ready.wait()
    _on_signals(stopping)


async def _serve(settings: OperatorSettings, live: Problem, ready: Problem) -> list[Probes | http.Server]:
    """Serve probes and plain metrics on separate ports: readers of metrics, however many, cannot block kubelet."""
    limits, measured = settings.connections.limits(), settings.metrics
    probes = Probes(
        {"/healthz": (live, 500), "/readyz": (ready, 503)},
        limits,
        lambda reason: metrics.DROPPED.labels("probes", reason).inc(),
    )
    metrics.CONNECTIONS.labels("probes").set_function(probes.__len__)
    probes.listen(settings.probes.host, settings.probes.port)
    if measured.secure:
        return [probes]
    server = http.Server(http.metric_routes(), http.Port("metrics", measured.host, measured.port, limits))
    await server.start()
    return [probes, server]


def _raise_file_limit() -> None:
    """Raise the limit on file descriptors up to what three full ports need, as far as the machine allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Authority:
    """The progress server's certificate authority, read again when the file changes."""

    def __init__(self, file: Path) -> None:
        self._file, self._changed = file, 0.0
        self._text: str | None = None

    def __call__(self) -> str | None:
        """PEM text; None unless the file holds any certificate: a run without progress is better than no run."""
        try:
            changed = self._file.stat().st_mtime
            if changed != self._changed:
                self._changed, self._text = changed, None
                self._text = self._certificates()
        except FileNotFoundError:
            return None
        except OSError as problem:
            logger.warning("new pods report no progress: %s", problem)
        return self._text

    def _certificates(self) -> str | None:
        # Text between certificates is for people, in any encoding.
        found = _CERTIFICATE.findall(self._file.read_text(encoding="ascii", errors="ignore"))
        if not found:
            logger.warning("new pods report no progress: %s contains no certificate", self._file)
        return "".join(f"{certificate}\n" for certificate in found) or None


def _rows(cache: Cache) -> Iterator[tuple[str, str, str]]:
    # Plain JSON: typed parsing of thousands of runs would block the event loop at every scrape.
    for run in cache.runs.values():
        seen = json.loads(run.status)
        reasons = [c["reason"] for c in seen.get("conditions", ()) if c["type"] == SUCCEEDED]
        yield run.key.namespace, seen.get("phase", "New"), next(iter(reasons), "New")


if __name__ == "__main__":
    main()
