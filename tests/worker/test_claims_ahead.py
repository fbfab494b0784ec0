"""What a worker claims ahead of its slots must not become a hostage of what runs in them."""

from __future__ import annotations

import asyncio

from worker.yard import Yard, until


async def test_jobs_claimed_ahead_of_slow_ones_go_to_an_idle_worker_uncharged(yard: Yard) -> None:
    gate = asyncio.Event()

    async def run(payload: str) -> None:
        if payload == "slow":
            await gate.wait()

    await yard.add("t", 600, payload="fast")
    slow = await yard.add("t", 2, payload="slow")
    # Long before the slow ones end, their own time would have run out in line.
    late = await yard.add("t", 50, payload="late", timeout_seconds=0.5, max_attempts=1)
    async with yard.working({"t": run}, concurrency=2) as first:
        await until(lambda: yard.status_all(slow, "processing"), "the slow ones run")
        waiting = first.worker.claimed_ahead
        assert waiting == len(late), "the late ones are in the hands of the worker with the slow ones"
        async with yard.working({"t": run}):
            await until(lambda: yard.status_all(late, "completed"), "the late ones ran elsewhere")
            gate.set()
            await yard.all_ended()
    for job in late:
        assert await yard.tries(job) == [(1, "release")]
        assert (await yard.end_of(job))["attempt"] == 1
