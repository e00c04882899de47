"""The work queue: nothing lost, nothing twice at a time, everything in its time."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from support.leaping import leaping

from lmft_operator.queue import WorkQueue


class Bench:
    """A queue at work, with a log of what it did."""

    def __init__(self, workers: int = 4, **settings: Any) -> None:
        self.queue: WorkQueue[str] = WorkQueue(**settings)
        self.workers = workers
        self.log: list[tuple[str, float]] = []
        self.busy: set[str] = set()
        self.most = 0
        self.seconds = 0.0
        self.answers: dict[str, list[float | Exception | None]] = {}

    async def work(self, key: str) -> float | None:
        assert key not in self.busy, "one look at a time"
        self.busy.add(key)
        self.most = max(self.most, len(self.busy))
        self.log.append((key, asyncio.get_running_loop().time()))
        await asyncio.sleep(self.seconds)
        self.busy.discard(key)
        answer = self.answers.get(key, [None])
        found = answer.pop(0) if answer else None
        if isinstance(found, Exception):
            raise found
        return found

    async def __aenter__(self) -> "Bench":
        self.task = asyncio.create_task(self.queue.run(self.work, self.workers))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task

    @property
    def keys(self) -> list[str]:
        return [key for key, _ in self.log]


@leaping
async def test_a_key_added_many_times_while_it_waits_is_worked_on_once():
    bench = Bench()
    for _ in range(10):
        bench.queue.add("a")
    async with bench:
        await asyncio.sleep(0.02)
    assert bench.keys == ["a"]


@leaping
async def test_a_key_added_while_it_is_worked_on_comes_once_more():
    bench = Bench()
    bench.seconds = 0.05
    async with bench:
        bench.queue.add("a")
        await asyncio.sleep(0.02)
        for _ in range(5):
            bench.queue.add("a")
        await asyncio.sleep(0.15)
    assert bench.keys == ["a", "a"]


@leaping
async def test_keys_are_worked_on_side_by_side_up_to_the_workers():
    bench = Bench(workers=3)
    bench.seconds = 0.02
    async with bench:
        for number in range(9):
            bench.queue.add(f"k{number}")
        await asyncio.sleep(0.15)
    assert sorted(bench.keys) == sorted(f"k{number}" for number in range(9))
    assert bench.most == 3


@leaping
async def test_a_delay_is_kept_and_the_shortest_counts():
    bench = Bench()
    async with bench:
        bench.queue.add("a", 5)
        bench.queue.add("a", 2)
        bench.queue.add("a", 3)
        await asyncio.sleep(10)
    assert bench.log == [("a", pytest.approx(2))]


@leaping
async def test_a_look_now_replaces_a_look_later():
    bench = Bench()
    async with bench:
        bench.queue.add("a", 5)
        bench.queue.add("a")
        await asyncio.sleep(10)
    assert bench.log == [("a", pytest.approx(0))]


@leaping
async def test_the_work_itself_makes_the_next_appointment():
    bench = Bench()
    bench.answers["a"] = [30, 40, None]
    async with bench:
        bench.queue.add("a")
        await asyncio.sleep(1000)
    assert bench.log == [("a", pytest.approx(due)) for due in (0, 30, 70)]


@leaping
async def test_what_fails_comes_back_later_and_later():
    bench = Bench(base=2, most=8)
    bench.answers["a"] = [*(RuntimeError() for _ in range(5)), None]
    async with bench:
        bench.queue.add("a")
        await asyncio.sleep(1000)
    gaps = [after - before for (_, before), (_, after) in pairwise(bench.log)]
    ceilings = [2, 4, 8, 8, 8]
    assert len(gaps) == len(ceilings)
    assert all(ceiling / 2 - 0.01 <= gap <= ceiling + 0.01 for gap, ceiling in zip(gaps, ceilings, strict=True))


@leaping
async def test_a_failing_key_holds_up_no_other():
    bench = Bench(workers=1, base=0.5)
    bench.answers["bad"] = [RuntimeError()]
    async with bench:
        bench.queue.add("bad")
        bench.queue.add("good")
        await asyncio.sleep(0.05)
    assert bench.keys == ["bad", "good"]


@leaping
async def test_five_thousand_appointments_are_all_kept():
    bench = Bench(workers=8)
    due = {f"k{number}": 10.0 + number % 7 for number in range(5000)}
    async with bench:
        for key, delay in due.items():
            bench.queue.add(key, delay)
        await asyncio.sleep(100)
    assert len(bench.log) == 5000
    assert dict(bench.log) == pytest.approx(due)
    assert (len(bench.queue), bench.queue.delayed) == (0, 0)


@leaping
async def test_a_thousand_slow_keys_of_one_tenant_keep_no_other_waiting():
    # given two workers, a tenant with many keys that take a second each, and two tenants with one or two
    bench = Bench(workers=2, tenant=lambda key: key.partition("/")[0])
    bench.seconds = 1.0
    async with bench:
        for number in range(1000):
            bench.queue.add(f"hostile/{number}")
        await asyncio.sleep(10.5)
        before = len(bench.log)
        for key in ("calm/a", "calm/b", "quiet/a"):
            bench.queue.add(key)
        assert len(bench.queue) == 1000 - before + 3
        await asyncio.sleep(4)
    # then each tenant has its turn with the next workers that are free, and in its own order
    assert bench.keys[before : before + 6] == [
        f"hostile/{before}", "calm/a", "quiet/a", f"hostile/{before + 1}", "calm/b", f"hostile/{before + 2}",
    ]  # fmt: skip
    assert [key for key in bench.keys if key.startswith("hostile")] == [
        f"hostile/{n}" for n in range(len(bench.log) - 3)
    ]
