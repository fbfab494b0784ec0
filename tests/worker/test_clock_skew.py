"""F06: what is due, leased or late is judged by the clock of the database, whatever the processes' own clocks say."""

from __future__ import annotations

import asyncio
import time

import pytest

from jobyard import Context, Retry
from jobyard.clock import SystemClock
from jobyard.maintain.maintainer import CONNECTIONS, Maintainer
from jobyard.store.database import open_pool
from worker.yard import Yard

LEASE_SECONDS = 1.0
DELAY_SECONDS = 1.5
LATE_SECONDS = 3.0
"""Twice what a due job may wait: for the maintainer's pause and a worker's poll."""


@pytest.mark.parametrize("ahead", [600, -600], ids=["10 minutes ahead", "10 minutes behind"])
async def test_no_lease_is_lost_and_nothing_is_early_or_late_where_the_clock_is_wrong(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    right, right_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: right() + ahead)
    monkeypatch.setattr(time, "time_ns", lambda: right_ns() + ahead * 10**9)

    async def outlives_its_lease() -> None:
        await asyncio.sleep(3 * LEASE_SECONDS)

    async def second_try(ctx: Context) -> Retry | None:
        return Retry(after=DELAY_SECONDS) if ctx.attempt == 1 else None

    async def handle() -> None: ...

    pool = await open_pool(yard.url, size=CONNECTIONS, hot=True, name="jobyard maintain")
    maintainer = Maintainer(pool, SystemClock(), completed_days=0.001, failed_days=0.001)
    maintaining = asyncio.create_task(maintainer.run())
    try:
        functions = {"long": outlives_its_lease, "again": second_try, "t": handle}
        async with yard.working(functions, lease=LEASE_SECONDS) as working:
            worker = await working.started()
            (long,) = await yard.add("long")
            (again,) = await yard.add("again")
            (delayed,) = await yard.add(delay_seconds=DELAY_SECONDS)
            await yard.all_ended()
            assert working.worker.id == worker
    finally:
        maintainer.stop()
        await maintaining
    assert await yard.tries(long) == []
    assert (await yard.end_of(long))["attempt"] == 1
    assert await yard.tries(again) == [(1, "retry")]
    waited = await yard.db.fetch(
        "SELECT extract(epoch FROM d.started_at - coalesce(a.ended_at, j.created_at))::float8 AS seconds"
        " FROM jobyard.done d JOIN jobyard.job j ON j.id = d.job LEFT JOIN jobyard.attempt a USING (job)"
        " WHERE d.job = ANY($1)",
        [again, delayed],
    )
    assert len(waited) == 2
    for row in waited:
        assert DELAY_SECONDS <= row["seconds"] < DELAY_SECONDS + LATE_SECONDS
