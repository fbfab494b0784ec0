"""What is measured. Each scenario answers with a Report of its own figures and of the raw limit in the same run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from jobyard.bench import load, raw
from jobyard.bench.noop import NOOP, STAMP, STAMP_SOCKET
from jobyard.bench.report import Report, percentile
from jobyard.bench.stage import Stage, api, role
from jobyard.config import Settings

CONNECTIONS = 64
WARM_UP_JOBS = 20
BULK_JOBS = 1000
APP = "jobyard.bench.noop"
RAW = "bench.raw"
LONGEST_SECONDS = 900.0
"""A scenario that takes longer than this has hung."""
BLOAT_SECONDS = float(os.environ.get("JOBYARD_BENCH_BLOAT_SECONDS", "40"))
BLOAT_WINDOWS = 60
COMPLETED = "SELECT coalesce(sum(cardinality(jobs)), 0) FROM jobyard.event WHERE kind = 'completed'"

Scenario = Callable[[Stage, int, Settings], Awaitable[Report]]


async def create(stage: Stage, jobs: int, settings: Settings) -> Report:
    """Creates over HTTP at 64 connections, one API process, each committed before its answer; then in bulk."""
    body = json.dumps({"type": NOOP, "payload": {"to": "user@example.com"}}).encode()
    request = load.post("/api/jobs", body, settings)
    limit = await raw.single_row_inserts(stage, min(jobs, 20_000))
    async with api(stage) as port:
        await load.send(port, CONNECTIONS, min(jobs, 2_000), lambda _: request)
        wal = await stage.wal_position()
        began = time.perf_counter()
        took = await load.send(port, CONNECTIONS, jobs, lambda _: request)
        seconds = time.perf_counter() - began
        wal = await stage.wal_position() - wal
        one_by_one = await load.send(port, 1, min(jobs, 1_000), lambda _: request)
        bulk = await _bulk(port, jobs, settings)
    return Report(
        scenario="create",
        jobs=jobs,
        jobs_per_second=jobs / seconds,
        raw_jobs_per_second=limit,
        ratio=jobs / seconds / limit,
        p50_ms=percentile(took, 50),
        p99_ms=percentile(took, 99),
        wal_bytes_per_job=wal / jobs,
        details={
            "bulk jobs/s": bulk,
            "one client jobs/s": 1000 * len(one_by_one) / sum(one_by_one),
            "raw limit": f"pgbench single-row inserts, {raw.SINGLE_ROW_CLIENTS} clients",
        },
    )


async def _bulk(port: int, jobs: int, settings: Settings) -> float:
    item = {"type": NOOP, "payload": {"to": "user@example.com"}}
    request = load.post("/api/jobs/bulk", json.dumps({"jobs": [item] * BULK_JOBS}).encode(), settings)
    requests = max(2, jobs // BULK_JOBS)
    began = time.perf_counter()
    await load.send(port, 2, requests, lambda _: request)
    return requests * BULK_JOBS / (time.perf_counter() - began)


async def drain(stage: Stage, jobs: int, settings: Settings) -> Report:
    """One worker process and no-op jobs: claim, run, settle, with state, result, attempts and events kept. Where jobs are
    announced over a broker, a maintainer does it beside."""
    await raw.fill(stage, jobs, RAW)
    limit = await raw.drain(stage, jobs, RAW)
    await raw.fill(stage, jobs, NOOP)
    wal = await stage.wal_position()
    async with AsyncExitStack() as roles:
        if settings.bus.announces:
            await roles.enter_async_context(role(stage, "maintain"))
        worker = await roles.enter_async_context(role(stage, "worker", JOBYARD_APP=APP))
        seconds = await _seconds_until_done(stage, jobs)
        wal = await stage.wal_position() - wal
    return Report(
        scenario="drain",
        jobs=jobs,
        jobs_per_second=jobs / seconds,
        raw_jobs_per_second=limit,
        ratio=jobs / seconds / limit,
        wal_bytes_per_job=wal / jobs,
        cpu_microseconds_per_job=worker.cpu_seconds / jobs * 1e6,
    )


async def named(stage: Stage, jobs: int, settings: Settings) -> Report:
    """What one PostgreSQL carries where it is not asked for jobs but told which: claims by name and settles alone. The raw
    limit beside it looks for its jobs."""
    await raw.fill(stage, jobs, RAW)
    limit = await raw.drain(stage, jobs, RAW)
    await raw.fill(stage, jobs, RAW)
    by_name = await raw.drain_by_name(stage, jobs, RAW)
    return Report(
        scenario="named",
        jobs=jobs,
        jobs_per_second=by_name,
        raw_jobs_per_second=limit,
        ratio=by_name / limit,
        details={"jobs a claim by name": raw.NAMED_BATCH, "jobs a claim that looks": raw.BATCH},
    )


async def _seconds_until_done(stage: Stage, jobs: int) -> float:
    """From the first claim to the last settle, both by the database's clock. Asks rarely: counting costs."""
    connection = await stage.connect()
    count = (
        "SELECT count(*), extract(epoch FROM max(d.finished_at) - min(d.started_at))::float8"
        " FROM jobyard.done d JOIN jobyard.job j ON j.id = d.job WHERE j.type = $1"
    )
    waiting = "SELECT EXISTS (SELECT FROM jobyard.ready) OR EXISTS (SELECT FROM jobyard.active)"
    async with asyncio.timeout(LONGEST_SECONDS):
        while await connection.fetchval(waiting):  # noqa: ASYNC110 - what is awaited is another process
            await asyncio.sleep(0.2)
    done, seconds = await connection.fetchrow(count, NOOP) or (0, 0.0)
    await connection.close()
    if done < jobs:
        raise AssertionError(f"{jobs - done} of {jobs} jobs are nowhere")
    return seconds


async def life(stage: Stage, jobs: int, settings: Settings) -> Report:
    """The whole life over HTTP, from create to completed: one API, one worker, one maintainer, one machine."""
    body = json.dumps({"type": NOOP, "payload": {"to": "user@example.com"}}).encode()
    request = load.post("/api/jobs", body, settings)
    limit = await raw.life(stage, jobs, RAW)
    async with api(stage) as port, role(stage, "worker", JOBYARD_APP=APP), role(stage, "maintain"):
        await load.send(port, CONNECTIONS, 500, lambda _: request)
        wal = await stage.wal_position()
        began = time.perf_counter()
        took = await load.send(port, CONNECTIONS, jobs, lambda _: request)
        await _seconds_until_done(stage, jobs)
        seconds = time.perf_counter() - began
        wal = await stage.wal_position() - wal
    return Report(
        scenario="life",
        jobs=jobs,
        jobs_per_second=jobs / seconds,
        raw_jobs_per_second=limit,
        ratio=jobs / seconds / limit,
        p50_ms=percentile(took, 50),
        p99_ms=percentile(took, 99),
        wal_bytes_per_job=wal / jobs,
    )


async def latency(stage: Stage, jobs: int, settings: Settings) -> Report:
    """Start latency of an idle system over HTTP: from the POST's first byte sent to the handler's first line."""
    body = json.dumps({"type": STAMP, "payload": {}}).encode()
    request = load.post("/api/jobs", body, settings)
    milliseconds: list[float] = []
    async with (
        _stamps() as (path, next_stamp),
        api(stage) as port,
        role(stage, "worker", JOBYARD_APP=APP, **{STAMP_SOCKET: str(path)}),
        role(stage, "maintain"),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(jobs + WARM_UP_JOBS):
            sent = time.monotonic_ns()
            writer.write(request)
            milliseconds.append((await next_stamp() - sent) / 1e6)
            await reader.readuntil(load.HEAD_END)
            # An idle system: let the worker settle, and say that it is idle again.
            await asyncio.sleep(0.02)
        writer.close()
    del milliseconds[:WARM_UP_JOBS]
    return Report(
        scenario="latency",
        jobs=jobs,
        p50_ms=percentile(milliseconds, 50),
        p99_ms=percentile(milliseconds, 99),
    )


@asynccontextmanager
async def _stamps() -> AsyncGenerator[tuple[Path, Callable[[], Awaitable[int]]]]:
    with tempfile.TemporaryDirectory(prefix="jobyard-bench-") as folder:
        path = Path(folder) / "stamps"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ears:
            ears.bind(os.fspath(path))
            ears.setblocking(False)
            loop = asyncio.get_running_loop()

            async def next_stamp() -> int:
                async with asyncio.timeout(20):
                    return int(await loop.sock_recv(ears, 64))

            yield path, next_stamp


async def bloat(stage: Stage, jobs: int, settings: Settings) -> Report:
    """Throughput with one transaction left open on the database: the last third of the run over the first.

    `jobs` is the size of the standing backlog; `ratio` is that of the thirds.
    """
    await raw.fill(stage, jobs, NOOP)
    holder = await stage.connect()
    await holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await holder.fetchval("SELECT count(*) FROM jobyard.lane")
    counter = await stage.connect()
    done: list[int] = []
    async with role(stage, "worker", JOBYARD_APP=APP):
        refilling = asyncio.create_task(_keep_filled(stage, jobs))
        async with asyncio.timeout(LONGEST_SECONDS):
            # The worker's start is no part of the first third.
            while not await counter.fetchval(COMPLETED):  # noqa: ASYNC110 - what is awaited is another process
                await asyncio.sleep(0.02)
        began = time.perf_counter()
        while time.perf_counter() - began < BLOAT_SECONDS:
            done.append(await counter.fetchval(COMPLETED))
            await asyncio.sleep(BLOAT_SECONDS / BLOAT_WINDOWS)
        refilling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await refilling
    await holder.close()
    await counter.close()
    third = len(done) // 3
    first, last = done[third] - done[0], done[-1] - done[-1 - third]
    seconds = BLOAT_SECONDS / 3
    return Report(
        scenario="bloat",
        jobs=done[-1],
        jobs_per_second=done[-1] / BLOAT_SECONDS,
        ratio=last / first,
        details={"first third jobs/s": first / seconds, "last third jobs/s": last / seconds},
    )


async def _keep_filled(stage: Stage, backlog: int) -> None:
    connection = await stage.connect()
    while True:
        waiting = await connection.fetchval(
            "SELECT count(*) FROM (SELECT FROM jobyard.ready LIMIT $1) r", backlog
        )
        if waiting < backlog // 2:
            await raw.fill(stage, backlog // 2, NOOP)
        await asyncio.sleep(0.1)


SCENARIOS: dict[str, tuple[Scenario, int]] = {
    "create": (create, 20_000),
    "drain": (drain, 100_000),
    "named": (named, 100_000),
    "life": (life, 20_000),
    "latency": (latency, 300),
    "bloat": (bloat, 100_000),
}
"""Each with how many jobs it takes unless told otherwise."""
