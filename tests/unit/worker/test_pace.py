"""How often a worker goes to the database while jobs come fast."""

from __future__ import annotations

import asyncio

from jobyard.clock import ManualClock
from jobyard.worker.pace import PACE_JOBS, PACE_SECONDS, Pace


async def waits(pace: Pace, clock: ManualClock) -> bool:
    waiting = asyncio.create_task(pace.wait_for_company(clock))
    await asyncio.sleep(0)
    held_up = not waiting.done()
    await clock.advance(PACE_SECONDS)
    assert waiting.done()
    return held_up


async def test_only_what_comes_fast_waits_for_company() -> None:
    clock, pace = ManualClock(), Pace()
    assert not await waits(pace, clock), "nothing was before it"
    pace.took(PACE_JOBS - 1, clock.now())
    assert not await waits(pace, clock)
    pace.took(PACE_JOBS, clock.now())
    assert await waits(pace, clock)
    assert not await waits(pace, clock), "the moment is over"
