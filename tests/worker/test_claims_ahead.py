"""What a worker claims ahead of its slots must not become a hostage of what runs in them."""

from __future__ import annotations

import asyncio

from worker.yard import Yard, until


async def test_jobs_claimed_ahead_of_slow_ones_go_to_an_idle_worker_uncharged(yard: Yard) -> None:
    gate = asyncio.Event()
    ran_by: list[str] = []

    async def fast() -> None:
        pass

    async def slow() -> None:
        await gate.wait()

    async def late() -> None:
        ran_by.append("first")

    async def late_elsewhere() -> None:
        ran_by.append("second")

    await yard.add("fast", 600)
    slow_ones = await yard.add("slow", 2)
    late_ones = await yard.add("late", 50)
    # One lane after the other, as one busy queue would bring them.
    await yard.db.execute(
        "UPDATE jobyard.lane SET priority = CASE type WHEN 'fast' THEN 9 WHEN 'slow' THEN 8 ELSE 1 END"
    )
    async with yard.working({"fast": fast, "slow": slow, "late": late}, concurrency=2):
        await until(lambda: yard.status_all(slow_ones, "processing"), "the slow ones run")
        async with yard.working({"late": late_elsewhere}):
            await until(lambda: yard.status_all(late_ones, "completed"), "the late ones ran elsewhere", 10)
            gate.set()
            await yard.all_ended()
    assert ran_by == ["second"] * 50
    for job in late_ones:
        assert {outcome for _, outcome in await yard.tries(job)} <= {"release"}
        assert (await yard.end_of(job))["attempt"] == 1
