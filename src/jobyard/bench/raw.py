"""The limits of raw SQL, measured beside ours in the same run: the same statements with arrays passed through, and
single-row inserts as pgbench sends them."""

from __future__ import annotations

import asyncio
import re
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Callable

import asyncpg

from jobyard.bench.stage import Stage
from jobyard.domain.job import NewJob
from jobyard.ids import new_job_id
from jobyard.store import dispatch
from jobyard.store.database import open_pool, values
from jobyard.store.embedded.programs import find_programs
from jobyard.store.intake import Intake
from jobyard.store.lanes import Lanes
from jobyard.store.statements import statement

BATCH = 200
NAMED_BATCH = 100
FILL_ROWS = 1000
LEASE_SECONDS = 300.0
SINGLE_ROW_CLIENTS = 16
PAYLOAD = '{"to":"user@example.com"}'
BENCH_TABLE = """
CREATE TABLE jobyard.bench_insert (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), created_at timestamptz NOT NULL DEFAULT now(), tenant int,
    lane int, type text, queue text, payload json)
"""
BENCH_INSERT = (
    "INSERT INTO jobyard.bench_insert (tenant, lane, type, queue, payload)"  # noqa: S608 - made of our own constant
    f" VALUES (1, 1, 'email', 'default', '{PAYLOAD}');\n"
)

_Asked = tuple[list[int], list[int], list[int], int]
"""Lanes, hints, last places and limit of a claim."""

_Ask = Callable[["asyncpg.Connection[asyncpg.Record]", str], AsyncGenerator[_Asked, int]]


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
    return await _drain(stage, jobs, type, _looks)


async def drain_by_name(stage: Stage, jobs: int, type: str) -> float:
    """The same where each claim names its jobs; the names are known before."""
    return await _drain(stage, jobs, type, _names)


async def _looks(connection: asyncpg.Connection[asyncpg.Record], type: str) -> AsyncGenerator[_Asked, int]:
    """What claims ask for; told the highest lease of each."""
    lanes = [lane.id for lane in await dispatch.lanes_of(connection, [type])]
    hint = 0
    while True:
        hint = max(hint, (yield lanes, [hint] * len(lanes), [], BATCH) or 0)


async def _names(connection: asyncpg.Connection[asyncpg.Record], type: str) -> AsyncGenerator[_Asked, int]:
    ready = await connection.fetch(
        "SELECT r.lane, r.seq FROM jobyard.ready r JOIN jobyard.lane l ON l.id = r.lane WHERE l.type = $1"
        " ORDER BY r.lane, r.seq",
        type,
    )
    for at in range(0, len(ready), NAMED_BATCH):
        batch = ready[at : at + NAMED_BATCH]
        lanes, seqs = values(batch, "lane"), values(batch, "seq")
        yield lanes, [seq - 1 for seq in seqs], seqs, len(batch)
    while True:
        yield [], [], [], 1


async def _drain(stage: Stage, jobs: int, type: str, asked: _Ask) -> float:
    claiming, settling = await stage.connect(), await stage.connect()
    worker = await dispatch.start_worker(claiming, "raw", [type], BATCH, LEASE_SECONDS)
    claim, settle = await claiming.prepare(statement("claim")), await settling.prepare(statement("settle"))
    asking = asked(claiming, type)
    lanes, hints, last, limit = await anext(asking)
    settled = 0
    waiting: asyncio.Task[list[asyncpg.Record]] | None = None
    began = time.perf_counter()
    while settled < jobs:
        rows = await claim.fetch(lanes, hints, limit, worker, LEASE_SECONDS, last)
        if waiting is not None:
            settled += len(await waiting)
            waiting = None
        lanes, hints, last, limit = await asking.asend(max((row["lease"] for row in rows), default=0))
        if rows:
            rows.sort(key=lambda row: row["job"])
            nothing: list[str | None] = [None] * len(rows)
            jobs_ended, leases = values(rows, "job"), values(rows, "lease")
            done = ["completed"] * len(rows)
            waiting = asyncio.create_task(settle.fetch(jobs_ended, leases, done, nothing, nothing, nothing))
    seconds = time.perf_counter() - began
    await asking.aclose()
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
    """Rows per second that pgbench inserts one by one with 16 clients, each row with its own commit, into a table
    shaped like `job`."""
    connection = await stage.connect()
    await connection.execute(BENCH_TABLE)
    try:
        return await asyncio.to_thread(_pgbench, stage.url, rows // SINGLE_ROW_CLIENTS)
    finally:
        await connection.execute("DROP TABLE jobyard.bench_insert")
        await connection.close()


def _pgbench(url: str, rows_a_client: int) -> float:
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(BENCH_INSERT)
        script.flush()
        settings = f"-n -M prepared -c {SINGLE_ROW_CLIENTS} -j 2 -t {rows_a_client} -f {script.name}".split()
        program = find_programs().path("pgbench")
        done = subprocess.run([program, *settings, url], capture_output=True, text=True, check=True)
    tps = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    if tps is None:
        raise AssertionError(f"pgbench did not say how fast it was:\n{done.stdout}{done.stderr}")
    return float(tps[1])
