"""What the probes answer."""

import asyncio
import contextlib
import time

from lmft_operator.cache import Cache
from lmft_operator.health import Health


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


def body(version: int, uid: str = "u1", **metadata: object) -> dict:
    return {"metadata": {"namespace": "a", "name": "r", "uid": uid, "resourceVersion": str(version), **metadata}}


def job(version: int, uid: str = "j1") -> dict:
    found = body(version, uid)
    found["metadata"] |= {"name": "r-1", "labels": {"lmfinetune.dev/run-uid": "u1", "lmfinetune.dev/attempt": "1"}}
    return found


def test_the_cache_never_goes_back_to_an_older_version():
    cache = Cache()
    assert cache.run_seen(body(5)) == ("a", "r")
    cache.run_seen(body(3, generation=9))
    assert cache.runs["a", "r"].version == "5"


def test_an_echo_of_ones_own_write_is_no_news():
    cache = Cache()
    cache.run_seen(body(5))
    assert cache.run_seen(body(6)) is None
    assert cache.runs["a", "r"].version == "6"


def test_a_write_is_expected_until_the_watch_shows_it_or_a_newer_one():
    cache = Cache()
    cache.run_seen(body(5))
    cache.run_written(body(7))
    cache.run_seen(body(6))
    assert "u1" in cache.unseen
    cache.run_seen(body(8))
    assert cache.unseen == {}


def test_a_watch_that_is_faster_than_the_answer_leaves_nothing_to_wait_for():
    cache = Cache()
    cache.run_seen(body(1))
    cache.job_seen(job(7))
    cache.job_written(job(7))
    cache.run_seen(body(8))
    cache.run_written(body(8))
    assert cache.unseen == {}


def test_a_deleted_object_does_not_come_back_with_an_older_list():
    cache = Cache()
    cache.run_seen(body(1))
    cache.job_seen(job(2))
    cache.job_gone(job(3))
    cache.job_seen(job(2))
    assert cache.observe(("a", "r"), 0.0).jobs == ()


def test_a_list_without_an_object_removes_it_unless_that_is_newer():
    cache = Cache()
    cache.run_seen(body(1))
    cache.job_seen(job(5))
    assert cache.retain("jobs", None, [], 4) == set()
    assert cache.retain("jobs", "elsewhere", [], 9) == set()
    assert cache.retain("jobs", None, [], 6) == {("a", "r")}
    assert cache.observe(("a", "r"), 0.0).jobs == ()


def test_a_pod_that_vanished_leaves_its_last_facts_until_its_attempt_is_written_down():
    cache = Cache()
    cache.run_seen(body(1))
    cache.pod_seen(job(2, "p1"))
    cache.pod_gone(job(3, "p1"))
    assert [pod.gone for pod in cache.observe(("a", "r"), 0.0).pods] == [True]
    cache.settle("u1", [1])
    assert cache.observe(("a", "r"), 0.0).pods == ()


def test_a_run_made_anew_under_the_same_name_starts_without_the_old_ones_jobs():
    cache = Cache()
    cache.run_seen(body(1))
    cache.job_seen(job(2))
    cache.run_seen(body(9, "u2"))
    assert cache.observe(("a", "r"), 0.0).jobs == ()


def test_warnings_are_kept_only_about_children_of_ours():
    cache = Cache()
    cache.run_seen(body(1))
    cache.job_seen(job(2))
    event = {"type": "Warning", "reason": "FailedCreate", "message": "quota", "lastTimestamp": "2027-01-15T08:00:00Z"}
    assert cache.warned(event | {"involvedObject": {"uid": "stranger"}}) is None
    assert cache.warned(event | {"involvedObject": {"uid": "j1"}}) == ("a", "r")
    assert cache.observe(("a", "r"), 0.0).warnings["j1"].message == "quota"
