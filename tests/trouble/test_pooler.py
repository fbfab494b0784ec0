"""Everything through pgbouncer in transaction mode: no statement, setting or lock outlives its transaction, and whoever
is not woken polls."""

from __future__ import annotations

import asyncio
from pathlib import Path

from jobyard.store.database import connect, passes_pooler
from pooler import pooler_before
from telemetry.yard_processes import yard_processes
from trouble.load import create, endings, some_jobs
from worker.yard import Yard


async def test_through_a_pooler_all_processes_work_and_workers_find_every_job_by_polling(
    yard: Yard, tmp_path: Path
) -> None:
    # Fewer sessions than connections: each statement may meet another session than the one before.
    with pooler_before(yard.url, sessions=5) as address:
        async with yard_processes(tmp_path, address, app="trouble_jobs") as processes:
            client = processes.client
            await asyncio.gather(*(create(client, some_jobs(10)) for _ in range(4)))
            (first,) = await create(client, some_jobs(1))
            again = await client.post(f"/api/jobs/{first}/cancel")
            assert again.status_code in (200, 202, 409), again.text
            answers = [
                await client.get(path) for path in ("/api/jobs", f"/api/jobs/{first}/events", "/api/stats")
            ]
            assert {answer.status_code for answer in answers} == {200}
            await yard.all_ended()
            ends = await endings(yard)
            ends -= {
                end: count for end, count in ends.items() if end[0] == "failed"
            }  # the one that was cancelled
            assert set(ends) == {("completed", 1, True), ("completed", 2, True)}
            assert ends["completed", 2, True] == 4 * 10 / 5
            assert "pooler" in processes.programs["worker"].said
            assert '"level": "error"' not in processes.said
            assert "loop.failed" not in processes.said
            assert "jobyard_listener_up 0.0" in (await processes.metrics("worker")).text


async def test_a_pooler_is_told_from_a_server(yard: Yard) -> None:
    with pooler_before(yard.url) as address:
        for url, passes in ((yard.url, False), (address, True)):
            connection = await connect(url, hot=False, name="test")
            assert await passes_pooler(connection) is passes
            await connection.close()
