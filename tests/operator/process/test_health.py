"""What the probes answer."""

import asyncio
import contextlib
import time

from lmft_operator.process.health import Health


async def forever() -> None:
    await asyncio.Event().wait()


async def test_a_part_that_has_stopped_is_dead():
    health = Health(60)
    health.tasks = {"queue": asyncio.create_task(forever())}
    assert health.live([], time.monotonic()) is None
    health.tasks["queue"].cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await health.tasks["queue"]
    assert health.live([], time.monotonic()) == "queue has stopped"


def test_a_write_that_the_watch_never_shows_means_a_dead_watch():
    health, now = Health(60), time.monotonic()
    assert health.live([(7, now - 59)], now) is None
    assert "the watch has shown nothing" in (health.live([(7, now - 61)], now) or "")


def test_an_api_server_that_is_away_is_no_fault_of_ours():
    health, now = Health(60), time.monotonic()
    assert health.live([(7, now - 500)], now - 490) is None


async def test_it_is_ready_when_the_lists_are_in_and_all_watches_run():
    health = Health(60)
    assert health.ready() == "the first list is not complete"
    health.synced = True
    assert "lmfinetunes, jobs, pods" in (health.ready() or "")
    names = [f"watcher for {kind}.v1@None" for kind in ("lmfinetunes", "jobs", "pods")]
    tasks = [asyncio.create_task(forever(), name=name) for name in names]
    assert health.ready() is None
    tasks[1].cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await tasks[1]
    assert "jobs" in (health.ready() or "")
    for task in tasks:
        task.cancel()
