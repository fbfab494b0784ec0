"""The limits of raw SQL, measured beside ours in the same run: the same statements with arrays passed through, and
single-row inserts as pgbench sends them."""

from __future__ import annotations

import asyncio
import time

import asyncpg

from jobyard.bench.stage import Stage
from jobyard.domain.job import NewJob
from jobyard.ids import new_job_id
from jobyard.store import dispatch
from jobyard.store.database import open_pool, values
from jobyard.store.intake import Intake
from jobyard.store.lanes import Lanes
from jobyard.store.statements import statement

BATCH = 200
FILL_ROWS = 1000
LEASE_SECONDS = 300.0
SINGLE_ROW_CLIENTS = 16
PAYLOAD = '{"to":"user@example.com"}'


async def fill(stage: Stage, jobs: int, type: str) -> None:
    """Create so many ready jobs, fast."""
    pool = await open_pool(stage.url, size=2, hot=True)
    intake = Intake(pool, Lanes(), queue_limit=FILL_ROWS, timeout=60)
    for first in range(0, jobs, FILL_ROWS):
        count = min(FILL_ROWS, jobs - first)
        await intake.create_many([NewJob(new_job_id(), type, PAYLOAD) for _ in range(count)])
    await pool.close()


async def drain(stage: Stage, jobs: int, type: str) -> float:
    """Jobs per second of claim and settle alone: the two statements of the worker on two connections, what the one
    answers passed to the other without a look. The jobs are ready already."""
    claiming, settling = await stage.connect(), await stage.connect()
    worker = await dispatch.start_worker(claiming, "raw", [type], BATCH, LEASE_SECONDS)
    lanes = [lane.id for lane in await dispatch.lanes_of(claiming, [type])]
    claim, settle = await claiming.prepare(statement("claim")), await settling.prepare(statement("settle"))
    hint, settled = 0, 0
    waiting: asyncio.Task[list[asyncpg.Record]] | None = None
    began = time.perf_counter()
    while settled < jobs:
        rows = await claim.fetch(lanes, [hint] * len(lanes), BATCH, worker, LEASE_SECONDS)
        if waiting is not None:
            settled += len(await waiting)
            waiting = None
        if rows:
            rows.sort(key=lambda row: row["job"])
            hint = max(row["lease"] for row in rows)
            nothing: list[str | None] = [None] * len(rows)
            jobs_ended, leases = values(rows, "job"), values(rows, "lease")
            done = ["completed"] * len(rows)
            waiting = asyncio.create_task(settle.fetch(jobs_ended, leases, done, nothing, nothing, nothing))
    seconds = time.perf_counter() - began
    await claiming.close()
    await settling.close()
    return jobs / seconds


async def life(stage: Stage, jobs: int, type: str) -> float:
    """Jobs per second of create, claim and settle in raw SQL, one after the other: no HTTP, no Python in between."""
    began = time.perf_counter()
    await fill(stage, jobs, type)
    await drain(stage, jobs, type)
    return jobs / (time.perf_counter() - began)


async def single_row_inserts(stage: Stage, rows: int) -> float:
    """Rows per second that 16 clients insert one by one into a table shaped like `job`, each with its own commit."""
    pool = await open_pool(stage.url, size=SINGLE_ROW_CLIENTS, hot=True)
    await pool.execute(
        "CREATE TABLE IF NOT EXISTS jobyard.bench_insert (id uuid PRIMARY KEY, created_at timestamptz DEFAULT now(),"
        " tenant int, lane int, type text, queue text, payload json)"
    )
    sql = "INSERT INTO jobyard.bench_insert (id, tenant, lane, type, queue, payload) VALUES ($1, 1, 1, $2, $2, $3)"
    numbers = iter(range(rows))

    async def client() -> None:
        async with pool.acquire() as connection:
            insert = await connection.prepare(sql)
            for _ in numbers:
                await insert.fetch(new_job_id(), "email", PAYLOAD)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(SINGLE_ROW_CLIENTS)))
    seconds = time.perf_counter() - began
    await pool.execute("DROP TABLE jobyard.bench_insert")
    await pool.close()
    return rows / seconds
