"""What a worker claims ahead of its slots must not become a hostage of what runs in them."""

from __future__ import annotations

import asyncio

import pytest

from jobyard.worker.slots import Slots
from worker.yard import Yard, until

CLAIMED = 52


async def test_jobs_claimed_ahead_of_slow_ones_go_to_an_idle_worker_uncharged(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()

    async def run(payload: str) -> None:
        if payload == "slow":
            await gate.wait()

    usual, claimers = Slots.room, list[Slots]()

    def room_of_a_fast_past(slots: Slots, now: float) -> int:
        """The first claim comes from a worker whose jobs were fast until now; it has no room again."""
        if not claimers:
            claimers.append(slots)
            return CLAIMED
        return 0 if slots is claimers[0] else usual(slots, now)

    monkeypatch.setattr(Slots, "room", room_of_a_fast_past)
    slow = await yard.add("t", 2, payload="slow")
    # Long before the slow ones end, their own time would have run out in line.
    late = await yard.add("t", CLAIMED - 2, payload="late", timeout_seconds=0.5, max_attempts=1)
    async with yard.working({"t": run}, concurrency=2) as first:
        await until(lambda: yard.status_all(slow, "processing"), "the slow ones run")
        assert first.worker.claimed_ahead == len(late), "the late ones wait behind the slow ones"
        async with yard.working({"t": run}):
            await until(lambda: yard.status_all(late, "completed"), "the late ones ran elsewhere")
            gate.set()
            await yard.all_ended()
    for job in late:
        assert await yard.tries(job) == [(1, "release")]
        assert (await yard.end_of(job))["attempt"] == 1
