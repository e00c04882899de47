"""The process: settings, kopf in a loop of ours, the queue, the HTTP server, and an orderly end."""

import asyncio
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import kopf
import uvloop
from aiohttp import web

from lmft_operator import handlers, http, logs, metrics, status
from lmft_operator.cache import Cache
from lmft_operator.cluster import Cluster
from lmft_operator.facts import Key
from lmft_operator.health import Health
from lmft_operator.queue import WorkQueue
from lmft_operator.reconcile import Reconciler
from lmft_operator.resync import resync_forever, resync_until_done
from lmft_operator.settings import OperatorSettings, SettingsError, load

logger = logging.getLogger(__name__)


def main() -> None:
    """Entry point: run until SIGTERM."""
    try:
        settings = load()
    except SettingsError as problem:
        sys.exit(f"lmft-operator: {problem}")
    logs.configure(settings.log_level)
    # What is loaded by now lives as long as the process: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    uvloop.run(run(settings))


async def run(settings: OperatorSettings) -> None:
    """Everything at once, until a signal or until a part fails; then stop within seconds."""
    cluster = await Cluster.connect(settings.api)
    cache = Cache()
    queue: WorkQueue[Key] = WorkQueue()
    reconciler = Reconciler(cluster, cache, settings, Authority(Path(settings.progress.ca_file)))
    reconciler.enqueue = queue.add
    health = Health(settings.watch.stale_seconds)
    metrics.register_runs(lambda: _rows(cache))
    metrics.QUEUE_READY.set_function(lambda: len(queue))
    metrics.QUEUE_DELAYED.set_function(lambda: queue.delayed)
    server = await http.serve(
        http.probe_routes(lambda: health.live(cache.unseen.values(), cluster.last_answer), health.ready),
        settings.http.host,
        settings.http.port,
    )
    stop = asyncio.Event()

    async def work() -> None:
        await resync_until_done(cluster, cache, settings.watch.namespaces, queue.add)
        health.synced = True
        logger.info("%d runs; watching", len(cache.runs))
        for key in cache.runs:
            queue.add(key)
        await queue.run(reconciler, settings.api.workers)

    parts = {
        "kopf": kopf.operator(
            registry=handlers.register(cache, queue.add),
            settings=handlers.kopf_settings(settings),
            clusterwide=not settings.watch.namespaces,
            namespaces=settings.watch.namespaces,
            standalone=True,
            stop_flag=stop,
        ),
        "queue": work(),
        "resync": resync_forever(cluster, cache, settings.watch.namespaces, queue.add, settings.watch.resync_seconds),
    }
    health.tasks = {name: asyncio.create_task(part, name=name) for name, part in parts.items()}
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({stopping, *health.tasks.values()}, return_when=asyncio.FIRST_COMPLETED)
        failed = [name for name, task in health.tasks.items() if task.done()]
        if failed and not stop.is_set():
            logger.error("%s has stopped; ending", ", ".join(failed))
    finally:
        await _end(health, stop, server, cluster)
    for task in health.tasks.values():
        if not task.cancelled() and (problem := task.exception()) is not None:
            raise problem


async def _end(health: Health, stop: asyncio.Event, server: web.AppRunner, cluster: Cluster) -> None:
    """No new work, a moment for what is under way, then close all connections."""
    stop.set()
    for name in ("queue", "resync"):
        health.tasks[name].cancel()
    await asyncio.wait(health.tasks.values(), timeout=6.0)
    for task in health.tasks.values():
        task.cancel()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(server.cleanup(), 1.0)
    await cluster.close()


class Authority:
    """The progress server's certificate authority, read again when the file changes."""

    def __init__(self, file: Path) -> None:
        self._file, self._changed, self._text = file, 0.0, ""

    def __call__(self) -> str | None:
        """PEM text, or None while there is no file."""
        try:
            changed = self._file.stat().st_mtime
        except FileNotFoundError:
            return None
        if changed != self._changed:
            self._text, self._changed = self._file.read_text(encoding="ascii"), changed
        return self._text


def _rows(cache: Cache) -> Iterator[tuple[str, str, str]]:
    for run in cache.runs.values():
        seen = status.parse(run.status)
        yield run.key.namespace, seen.phase.value if seen.phase else "New", status.reason(seen) or "New"


if __name__ == "__main__":
    main()
