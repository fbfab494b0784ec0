"""The maintainer's loops on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from jobyard.clock import ManualClock, SystemClock
from jobyard.maintain.due import LONGEST_PAUSE_SECONDS, Due
from jobyard.maintain.maintainer import CONNECTIONS, Maintainer
from jobyard.maintain.retention import PAUSE_SECONDS, Retention
from jobyard.maintain.sweep import SWEEP_SECONDS, Sweep
from jobyard.store import dispatch, upkeep
from jobyard.store.database import Connection, Pool, open_pool
from worker.yard import Yard, until

DUE_BOUND_SECONDS = 2 * LONGEST_PAUSE_SECONDS


@pytest.fixture
async def yard(database: str, connection: Connection, pool: Pool) -> Yard:
    return Yard(database, connection, pool)


@asynccontextmanager
async def maintaining(yard: Yard) -> AsyncGenerator[Maintainer]:
    pool = await open_pool(yard.url, size=CONNECTIONS, hot=True, name="jobyard maintain")
    maintainer = Maintainer(pool, SystemClock(), 7, 90)
    task = asyncio.create_task(maintainer.run())
    try:
        yield maintainer
    finally:
        maintainer.stop()
        await asyncio.wait_for(task, 10)


async def claim_all(yard: Yard, worker: int) -> list[dispatch.Claimed]:
    lanes = [row["id"] for row in await yard.db.fetch("SELECT id FROM jobyard.lane")]
    return await dispatch.claim(yard.db, worker, lanes, [0] * len(lanes), 100, 30)


async def finish_all(yard: Yard, days_ago: float) -> None:
    await yard.db.execute(
        "WITH gone AS (DELETE FROM jobyard.ready RETURNING *)"
        " INSERT INTO jobyard.done (job, run, attempt, finished_at, tenant, status)"
        " SELECT job, run, 1, now() - make_interval(secs => $1 * 86400), 1, 'completed' FROM gone",
        days_ago,
    )


async def test_due_jobs_are_in_line_within_the_bound_by_the_databases_clock(yard: Yard) -> None:
    async with maintaining(yard) as maintainer:
        await until(lambda: maintainer.ready, "it is ready")
        for delay in (0.3, 0.05, 0.6):
            await yard.add(delay_seconds=delay)
        await until(lambda: yard.db.fetchval("SELECT count(*) = 3 FROM jobyard.ready"), "all are due")
    late = await yard.db.fetch(
        "SELECT extract(epoch FROM r.since - j.run_at)::float8 AS late FROM jobyard.ready r JOIN jobyard.job j ON j.id = r.job"
    )
    waits = [row["late"] for row in late]
    assert len(waits) == 3
    assert all(0 <= wait < DUE_BOUND_SECONDS for wait in waits), waits


async def test_due_sleeps_until_the_next_job_and_never_longer_than_its_pause(yard: Yard) -> None:
    due = Due(yard.pool)
    assert await due.step() == LONGEST_PAUSE_SECONDS
    await yard.add(delay_seconds=3600.0)
    assert await due.step() == LONGEST_PAUSE_SECONDS
    await yard.add(delay_seconds=0.2)
    assert 0 <= await due.step() <= 0.2


async def test_due_goes_on_at_once_while_full_batches_come(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "PROMOTE_ROWS", 10)
    await yard.add(count=25, delay_seconds=3600.0)
    await yard.db.execute("UPDATE jobyard.scheduled SET run_at = now()")
    due = Due(yard.pool)
    pauses = [await due.step() for _ in range(3)]
    assert pauses[:2] == [0.0, 0.0]
    assert pauses[2] == LONGEST_PAUSE_SECONDS
    assert await yard.count("ready") == 25


async def test_due_does_not_spin_while_another_holds_what_is_due(yard: Yard) -> None:
    await yard.add(delay_seconds=3600.0)
    await yard.db.execute("UPDATE jobyard.scheduled SET run_at = now() - interval '1 min'")
    async with yard.pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM jobyard.scheduled FOR UPDATE")
        assert await Due(yard.pool).step() > 0


async def test_the_sweep_takes_back_what_the_dead_held_and_asks_to_come_again(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "SWEEP_ROWS", 4)
    await yard.add(count=10)
    worker = await dispatch.start_worker(yard.db, "w", ["t"], 8, 30)
    assert len(await claim_all(yard, worker)) == 10
    sweep = Sweep(yard.pool, yard.lanes)
    assert await sweep.step() == SWEEP_SECONDS
    assert await yard.count("active") == 10
    await yard.db.execute("UPDATE jobyard.worker SET expires_at = now()")
    pauses = [await sweep.step() for _ in range(3)]
    assert pauses == [0.0, 0.0, SWEEP_SECONDS]
    assert (await yard.count("active"), await yard.count("ready"), await yard.count("worker")) == (0, 10, 0)


async def test_an_attempt_past_its_deadline_is_taken_from_a_worker_that_lives(yard: Yard) -> None:
    (job,) = await yard.add(max_attempts=1)
    worker = await dispatch.start_worker(yard.db, "w", ["t"], 8, 30)
    await claim_all(yard, worker)
    await yard.db.execute("UPDATE jobyard.active SET deadline = now()")
    await Sweep(yard.pool, yard.lanes).step()
    assert ((await yard.place(job))["status"], (await yard.place(job))["reason"]) == ("failed", "timeout")
    assert await yard.count("worker") == 1


async def test_retention_deletes_what_is_old_enough_and_rests_as_long_as_it_took(yard: Yard) -> None:
    clock = ManualClock()
    retention = Retention(yard.pool, clock, completed_days=7, failed_days=90)
    assert await retention.step() == PAUSE_SECONDS
    await yard.add(count=3)
    await finish_all(yard, days_ago=8)
    (young,) = await yard.add()
    await finish_all(yard, days_ago=6)
    assert await retention.step() == 0.0, "the clock stood still meanwhile"
    assert [row["id"] for row in await yard.db.fetch("SELECT id FROM jobyard.job")] == [young]
    assert await yard.count("done") == 1
    assert await retention.step() == PAUSE_SECONDS


async def test_a_maintainer_outlives_the_loss_of_its_connections(yard: Yard) -> None:
    async with maintaining(yard) as maintainer:
        await until(lambda: maintainer.ready, "it is ready")
        for _ in range(2):
            await until(
                lambda: yard.terminate_sessions("jobyard maintain"), "its sessions are there to be cut"
            )
            (job,) = await yard.add(delay_seconds=0.01)
            await until(
                lambda job=job: yard.db.fetchval("SELECT true FROM jobyard.ready WHERE job = $1", job), "due"
            )
        await until(lambda: maintainer.ready, "it is ready again")


async def test_it_says_that_it_is_not_ready_while_a_loop_fails(yard: Yard) -> None:
    async with maintaining(yard) as maintainer:
        await until(lambda: maintainer.ready, "it is ready")
        await yard.db.execute("ALTER TABLE jobyard.scheduled RENAME TO away")
        await until(lambda: not maintainer.ready, "it is not ready")
        assert (maintainer.parts["due"], maintainer.parts["sweep"]) == (False, True)
        await yard.db.execute("ALTER TABLE jobyard.away RENAME TO scheduled")
        await until(lambda: maintainer.ready, "it is ready again")
    assert not maintainer.ready


async def test_a_database_that_froze_cannot_hold_the_maintainer(yard: Yard) -> None:
    async with maintaining(yard) as maintainer:
        await until(lambda: maintainer.ready, "it is ready")
        frozen = await until(
            lambda: yard.db.fetch(
                "SELECT pid FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'jobyard maintain'"
            )
        )
        try:
            for row in frozen:
                os.kill(row["pid"], signal.SIGSTOP)
            async with yard.pool.acquire() as connection:
                await connection.execute("SELECT pg_sleep(2 * $1::float8)", LONGEST_PAUSE_SECONDS)
            began = time.monotonic()
            maintainer.stop()
            await until(
                lambda: (
                    not [
                        task
                        for task in asyncio.all_tasks()
                        if task.get_name() in ("due", "sweep", "retention")
                    ]
                ),
                "its loops are over",
            )
            assert time.monotonic() - began < 5
        finally:
            for row in frozen:
                os.kill(row["pid"], signal.SIGCONT)


async def test_two_maintainers_move_each_due_job_once(yard: Yard) -> None:
    await yard.add(count=400, delay_seconds=3600.0)
    async with maintaining(yard), maintaining(yard):
        await yard.db.execute("UPDATE jobyard.scheduled SET run_at = now()")
        await until(lambda: yard.db.fetchval("SELECT count(*) = 0 FROM jobyard.scheduled"), "all are due")
    assert await yard.count("ready") == 400
