"""P9 and F21: the database is away for a while, and all of it goes on by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobyard.store.database import connect, open_pool
from jobyard.store.embedded import EmbeddedPostgres
from jobyard.store.migrate import migrate
from telemetry.yard_processes import yard_processes
from trouble.load import create, endings, some_jobs
from worker.yard import Yard, until

BACK_WITHIN_SECONDS = 2 * 10.0
DATABASE_SECONDS = 1.0
ANSWERED_WITHIN_SECONDS = 2 * DATABASE_SECONDS + 1


@pytest.fixture
async def server(server_folder: Path) -> AsyncIterator[EmbeddedPostgres]:
    """One of its own, with the schema."""
    with EmbeddedPostgres(server_folder) as server:
        connection = await connect(server.url("jobyard"), hot=False, name="test")
        await migrate(connection, server.url("jobyard"))
        await connection.close()
        yield server


@pytest.mark.parametrize("seconds", [5, pytest.param(60, marks=pytest.mark.soak)])
async def test_after_an_outage_all_is_at_full_speed_again_and_nothing_accepted_is_lost(
    server: EmbeddedPostgres, tmp_path: Path, seconds: int
) -> None:
    url = server.url("jobyard")
    settings = {"JOBYARD_DATABASE_TIMEOUT_SECONDS": str(DATABASE_SECONDS)}
    async with yard_processes(tmp_path, url, app="trouble_jobs", **settings) as processes:
        accepted = await create(processes.client, some_jobs(50))
        accepted += await create(processes.client, [job | {"delaySeconds": seconds} for job in some_jobs(50)])
        assert server.pid is not None
        os.kill(server.pid, signal.SIGQUIT)
        await until(lambda: server.pid is None, "the server has ended")
        over = time.monotonic() + seconds
        while time.monotonic() < over:
            asked = time.monotonic()
            answer = await processes.client.post("/api/jobs", json={"type": "quick", "payload": 1})
            assert time.monotonic() - asked < ANSWERED_WITHIN_SECONDS
            assert (answer.status_code, answer.headers.get("retry-after")) == (503, "1"), answer.text
            await asyncio.sleep(0.2)
        for role in processes.ports:
            assert not await processes.is_ready(role)

        await asyncio.to_thread(server.start)
        async with asyncio.timeout(BACK_WITHIN_SECONDS):
            for role in processes.ports:
                await until(
                    lambda role=role: processes.is_ready(role), f"{role} is ready", BACK_WITHIN_SECONDS
                )
            late = await create(processes.client, some_jobs(100))
        pool = await open_pool(url, size=1, hot=False, name="test")
        async with pool.acquire() as connection:
            yard = Yard(url, connection, pool)
            await yard.all_ended(BACK_WITHIN_SECONDS)
            assert await yard.count("done") >= len(accepted) + len(late)
            assert {(status, right) for status, _, right in await endings(yard)} == {("completed", True)}
            slowest = await connection.fetchval(
                "SELECT extract(epoch FROM max(d.started_at - j.created_at))::float8 FROM jobyard.done d"
                " JOIN jobyard.job j ON j.id = d.job WHERE d.job = ANY($1) AND j.type <> 'second-try'", late,
            )  # fmt: skip
            assert slowest < BACK_WITHIN_SECONDS
        await pool.close()
