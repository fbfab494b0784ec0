"""What stands behind a yard, in one event loop: its database, the HTTP API on it, and the parts of worker and
maintainer that write."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

from jobyard.api.app import create_app
from jobyard.api.server import Server
from jobyard.clock import ManualClock, SystemClock
from jobyard.config import Settings
from jobyard.domain.job import DEFAULT_TENANT
from jobyard.maintain.maintainer import Maintainer
from jobyard.store import dispatch, reads
from jobyard.store.database import Pool, open_pool
from jobyard.store.dispatch import Claimed, Ending, Lane
from jobyard.store.lanes import Lanes
from jobyard.testing.database import EMPTY, own_database
from jobyard.testing.jobs import Job, job
from jobyard.worker.link import LogLine, Progress
from jobyard.worker.reports import MAX_LINES, line_said, progress_said
from jobyard.worker.settler import Settler

CONNECTIONS = 6
LEASE_SECONDS = 7 * 86400.0
"""Nobody beats for the worker of a test, and a debugger may hold a handler for long."""

PAGE_SIZE = 1000
READY = """
SELECT l.type, count(*)::int AS jobs FROM jobyard.ready r JOIN jobyard.lane l ON l.id = r.lane
GROUP BY l.type ORDER BY 2 DESC, 1
"""


class Site:
    def __init__(self, pool: Pool, settings: Settings, url: str, database_url: str, empty: str) -> None:
        self.url = url
        self.database_url = database_url
        self._pool = pool
        self._empty = empty
        self.settler = Settler(pool, Lanes(), SystemClock(), lambda ending, held: None)
        # By a clock that stands still, a step that wants to go on at once asks for a pause of zero seconds.
        self._maintainer = Maintainer(
            pool, ManualClock(), settings.completed_retention_days, settings.failed_retention_days
        )

    async def empty(self) -> None:
        """No job, no history, and the time is that of the real clock again."""
        async with self._pool.acquire() as connection:
            await connection.execute(self._empty)

    async def now(self) -> datetime:
        async with self._pool.acquire() as connection:
            return await connection.fetchval("SELECT now()")

    async def travel(self, seconds: float) -> None:
        """Move the clock, then do all that a maintainer would have done until then."""
        async with self._pool.acquire() as connection:
            await connection.execute(
                "UPDATE jobyard_testing.travelled SET by = by + make_interval(secs => $1)", seconds
            )
        for loop in self._maintainer.loops:
            while await loop.step() == 0:
                pass

    async def start_worker(self, types: Iterable[str]) -> int:
        async with self._pool.acquire() as connection:
            return await dispatch.start_worker(connection, "jobyard testing", types, 1, LEASE_SECONDS)

    async def stop_worker(self, worker: int) -> None:
        async with self._pool.acquire() as connection:
            await dispatch.stop_worker(connection, worker)

    async def claim(self, worker: int, types: Iterable[str], limit: int) -> list[tuple[Claimed, Lane]]:
        """Up to `limit` ready jobs in the order a worker starts them: by priority, then by how long they wait."""
        async with self._pool.acquire() as connection:
            lanes = {lane.id: lane for lane in await dispatch.lanes_of(connection, types)}
            ordered = sorted(lanes.values(), key=lambda lane: -lane.priority)
            claimed = await dispatch.claim(
                connection, worker, [lane.id for lane in ordered], [0] * len(ordered), limit, LEASE_SECONDS
            )
        turns = [(attempt, lanes[attempt.lane]) for attempt in claimed]
        return sorted(turns, key=lambda turn: (-turn[1].priority, turn[0].lease))

    async def ready(self) -> dict[str, int]:
        """How many jobs of each type may run now, most first."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(READY)
        return {row["type"]: row["jobs"] for row in rows}

    async def settle(self, ending: Ending, said: Sequence[Progress | LogLine]) -> Job:
        """Write what an attempt said and how it ended, as a worker does, and look at what has become of its job."""
        if said:
            await self._write(ending, said)
        self.settler.add(ending)
        await self.settler.flushed()
        return await self.job(ending.job)

    async def _write(self, ending: Ending, said: Sequence[Progress | LogLine]) -> None:
        job, lease, now = ending.job, ending.lease, time.monotonic()
        told = [progress_said(job, lease, each) for each in said if isinstance(each, Progress)][-1:]
        written = [each for each in said if isinstance(each, LogLine)][:MAX_LINES]
        lines = [line_said(job, lease, number, line, now) for number, line in enumerate(written, 1)]
        async with self._pool.acquire() as connection:
            await dispatch.put_progress(connection, told)
            await dispatch.put_lines(connection, lines)

    async def job(self, id: UUID) -> Job:
        """Raises LookupError."""
        async with self._pool.acquire() as connection:
            row = await reads.get(connection, id, DEFAULT_TENANT)
            if row is None:
                raise LookupError(f"there is no job {id}")
            tries = await reads.attempts(connection, id, reads.NEWEST_LEASE, PAGE_SIZE)
            return job(row, tries, await reads.job_log(connection, id, reads.BEFORE_ALL_LINES, PAGE_SIZE))

    async def jobs(self) -> list[Job]:
        """All there are, oldest first."""
        newest_first: list[UUID] = []
        below: UUID | None = reads.NEWEST
        async with self._pool.acquire() as connection:
            while below is not None:
                page = await reads.list_jobs(connection, DEFAULT_TENANT, reads.Filters(), below, PAGE_SIZE)
                newest_first += [row["id"] for row in page.rows]
                below = page.last
        return [await self.job(id) for id in reversed(newest_first)]


@asynccontextmanager
async def site(server_url: str) -> AsyncGenerator[Site]:
    """Open until the end of the context. Raises DatabaseRefused."""
    stop = asyncio.Event()
    async with own_database(server_url) as database:
        settings = Settings(port=0)
        pool = await open_pool(database, size=CONNECTIONS, hot=True, name="jobyard testing")
        server = Server(create_app(settings, pool, Lanes(), SystemClock()), settings)
        serving = asyncio.create_task(server.serve(stop))
        async with pool.acquire() as connection:
            empty = await connection.fetchval(EMPTY)
        place = Site(pool, settings, f"http://{settings.host}:{server.port}", database, empty)
        settling = asyncio.create_task(place.settler.run())
        try:
            yield place
        finally:
            stop.set()
            await serving
            settling.cancel()
            await asyncio.wait([settling])
            await pool.close()
