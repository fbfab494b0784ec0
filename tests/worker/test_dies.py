"""A worker process that dies with jobs in its hands: all come back, and only the one to blame is charged."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from jobyard.clock import SystemClock
from jobyard.domain.retry import Backoff
from jobyard.maintain.maintainer import CONNECTIONS, Maintainer
from jobyard.store import upkeep
from jobyard.store.database import open_pool
from processes.program import Program, program
from worker.yard import Yard, until

LEASE_SECONDS = 1.0
SWEEP_BOUND_SECONDS = 5.0


def worker_process(folder: Path, yard: Yard, **settings: str) -> AbstractContextManager[Program]:
    return program(
        folder,
        "worker",
        "--app",
        "dangerous_jobs",
        DATABASE_URL=yard.url,
        JOBYARD_HOME=str(folder),
        JOBYARD_LEASE_SECONDS=str(LEASE_SECONDS),
        JOBYARD_CONCURRENCY="8",
        **settings,
    )


async def test_jobs_of_a_killed_worker_are_back_uncharged_as_suspects_within_lease_and_sweep(
    yard: Yard, tmp_path: Path
) -> None:
    jobs = await yard.add("hold", count=3) + await yard.add("hold in a thread")
    pool = await open_pool(yard.url, size=CONNECTIONS, hot=True)
    maintainer = Maintainer(pool, SystemClock(), 7, 90)
    maintaining = asyncio.create_task(maintainer.run())
    with worker_process(tmp_path, yard) as worker:
        await until(lambda: yard.db.fetchval("SELECT count(*) = 4 FROM jobyard.active"), "all run")
        killed_at = await yard.db.fetchval("SELECT now()")
        worker.tell(signal.SIGKILL)
        await worker.end()
        await until(lambda: yard.db.fetchval("SELECT count(*) = 4 FROM jobyard.ready"), "all are back")
    maintainer.stop()
    await maintaining
    took = await yard.db.fetchval(
        "SELECT max(extract(epoch FROM ended_at - $1))::float8 FROM jobyard.attempt", killed_at
    )
    assert took < 2 * (LEASE_SECONDS + SWEEP_BOUND_SECONDS)
    rows = await yard.db.fetch(
        "SELECT r.attempt, r.crashes, l.suspect FROM jobyard.ready r JOIN jobyard.lane l ON l.id = r.lane"
    )
    assert [tuple(row) for row in rows] == [(0, 0, 1)] * 4
    for job in jobs:
        assert await yard.tries(job) == [(1, "orphan")]


async def test_a_job_that_kills_its_worker_fails_after_three_charged_crashes_and_its_neighbours_complete(
    yard: Yard, tmp_path: Path
) -> None:
    neighbours = await yard.add("neighbour", count=6)
    (poison,) = await yard.add("poison", max_attempts=2, backoff=Backoff(0.001, 0.001))
    deaths = 0
    while await yard.status(poison) != "failed":
        with worker_process(tmp_path, yard) as worker:
            await _until_dead(yard, worker)
        deaths += 1
        assert deaths <= 5, "two deaths find the suspects, three are charged"
        await _take_back_what_the_dead_held(yard)
    with worker_process(tmp_path, yard):
        await yard.all_ended()
    end = await yard.end_of(poison)
    assert (end["reason"], end["attempt"], deaths) == ("crashed", 1, 5)
    assert json.loads(end["error"])["type"] == "Crash"
    assert [outcome for _, outcome in await yard.tries(poison)] == ["orphan", "orphan", "crash", "crash"]
    for job in neighbours:
        end = await yard.end_of(job)
        assert (end["status"], end["attempt"], end["result"]) == ("completed", 1, "1")
        assert {outcome for _, outcome in await yard.tries(job)} <= {"orphan"}


async def _until_dead(yard: Yard, worker: Program) -> None:
    """While it lives, retries come due."""

    async def dead() -> bool:
        await upkeep.promote(yard.db)
        return worker.over

    await until(dead, "the worker dies", 30)


async def _take_back_what_the_dead_held(yard: Yard) -> None:
    await yard.db.execute("UPDATE jobyard.worker SET expires_at = now()")
    await upkeep.sweep(yard.db, yard.lanes)


@pytest.mark.parametrize("type", ["leave", "leave in a thread"])
async def test_a_handler_that_exits_or_interrupts_does_not_take_the_process_with_it(
    yard: Yard, tmp_path: Path, type: str
) -> None:
    (exits,) = await yard.add(type, payload="exit", max_attempts=1)
    (interrupts,) = await yard.add(type, payload="interrupt", max_attempts=1)
    (after,) = await yard.add("neighbour")
    with worker_process(tmp_path, yard) as worker:
        assert json.loads((await yard.end_of(exits))["error"])["type"] == "SystemExit"
        assert json.loads((await yard.end_of(interrupts))["error"])["type"] == "KeyboardInterrupt"
        assert (await yard.end_of(after))["status"] == "completed"
        assert (await worker.end_after(signal.SIGTERM))[0] == 0


@pytest.mark.parametrize("type", ["hold", "hold in a thread", "ignore cancellation"])
async def test_a_worker_process_ends_in_time_with_its_job_handed_back(
    yard: Yard, tmp_path: Path, type: str
) -> None:
    (job,) = await yard.add(type)
    with worker_process(tmp_path, yard, JOBYARD_GRACE_SECONDS="0.5") as worker:
        await until(lambda: yard.count("active"), "it runs")
        code, seconds = await worker.end_after(signal.SIGTERM)
    assert code == 0
    assert seconds < 2 * (0.5 + 1)
    assert await yard.tries(job) == [(1, "release")]
    assert await yard.status(job) == "pending"
    assert await yard.count("worker") == 0
