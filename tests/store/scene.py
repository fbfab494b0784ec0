"""A database with jobs in it, and a few words for what the tests of the store do with them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from uuid import UUID

import asyncpg

from jobyard.domain.job import IdempotencyKey, NewJob
from jobyard.domain.lifecycle import Outcome, Succeeded, release, settle
from jobyard.ids import new_job_id
from jobyard.store import dispatch
from jobyard.store.database import Connection, Pool
from jobyard.store.dispatch import Claimed, Ending
from jobyard.store.intake import Answer, Created, Intake
from jobyard.store.lanes import Lanes

PLACES = ("ready", "scheduled", "active", "done")
LEASE = 30.0
DONE = Succeeded()
NUL_IN_JSONB = '{"k":"\\u0000"}'
"""JSON that `json` keeps and `jsonb` refuses."""


def a_job(**options: Any) -> NewJob:
    return NewJob(**{"id": new_job_id(), "type": "email", "payload": '{"to":"user@example.com"}'} | options)


def keyed(key: str, body: str = "body", **options: Any) -> NewJob:
    """A job asked for under an idempotency key, in a request with this body."""
    return a_job(idempotency=IdempotencyKey(key, sha256(body.encode()).digest()), **options)


def ids(answers: list[Answer]) -> list[UUID]:
    return [answer.id for answer in answers if isinstance(answer, Created)]


def ending(attempt: Claimed, outcome: Outcome | None = None, *, suspect: int = 0) -> Ending:
    """How the attempt ends with this outcome; without one it is released."""
    standing = attempt.standing(suspect)
    change = release(standing) if outcome is None else settle(standing, outcome, 0.5)
    lane = NewJob(attempt.job, attempt.type, "{}", queue=attempt.queue).lane.at_level(suspect)
    return Ending(attempt.job, attempt.lease, lane, change)


async def until(condition: Callable[[], Awaitable[Any]], *, seconds: float = 10.0) -> Any:
    """The first true answer of the condition, asked again and again until the deadline."""
    deadline = time.monotonic() + seconds
    while not (answer := await condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.002)
    return answer


@dataclass
class Scene:
    url: str
    pool: Pool
    db: Connection
    lanes: Lanes = field(default_factory=Lanes)

    def intake(self, *, queue_limit: int = 1000, timeout: float = 10.0, lanes: Lanes | None = None) -> Intake:
        return Intake(self.pool, lanes or self.lanes, queue_limit=queue_limit, timeout=timeout)

    async def add(self, count: int = 1, **options: Any) -> list[UUID]:
        """That many new jobs, created in one flush; their ids in order."""
        jobs = sorted((a_job(**options) for _ in range(count)), key=lambda job: job.id)
        await self.intake().create_many(jobs)
        return [job.id for job in jobs]

    async def worker(self, *types: str, lease: float = LEASE, name: str = "w") -> int:
        return await dispatch.start_worker(self.db, name, types or ("email",), 8, lease)

    async def lane_ids(self) -> list[int]:
        return [row["id"] for row in await self.db.fetch("SELECT id FROM jobyard.lane ORDER BY id")]

    async def claim(
        self,
        worker: int,
        limit: int = 1000,
        *,
        lanes: list[int] | None = None,
        hints: list[int] | None = None,
    ) -> list[Claimed]:
        """Attempts in the order they were entered, of every lane unless these are named."""
        lanes = await self.lane_ids() if lanes is None else lanes
        claimed = await dispatch.claim(self.db, worker, lanes, hints or [0] * len(lanes), limit, LEASE)
        return sorted(claimed, key=lambda attempt: attempt.lease)

    async def claim_one(self, worker: int | None = None) -> Claimed:
        (attempt,) = await self.claim(await self.worker() if worker is None else worker, 1)
        return attempt

    async def add_finished(self, count: int = 1, outcome: Outcome = DONE, **options: Any) -> list[UUID]:
        """That many new jobs whose only attempt ended with this outcome."""
        jobs = await self.add(count, **options)
        claimed = await self.claim(await self.worker(*{options.get("type", "email")}))
        await dispatch.settle(self.db, [ending(attempt, outcome) for attempt in claimed])
        return jobs

    async def expire(self, worker: int) -> None:
        """The worker stopped beating long ago."""
        await self.db.execute(
            "UPDATE jobyard.worker SET expires_at = now() - interval '1s' WHERE id = $1", worker
        )

    async def place(self, job: UUID) -> asyncpg.Record | None:
        """Where the job is now, as everybody reads it."""
        return await self.db.fetchrow(
            "SELECT * FROM jobyard.place WHERE job = $1 ORDER BY run DESC LIMIT 1", job
        )

    async def standing_of(self, job: UUID) -> tuple[str, str | None, int]:
        """Status, reason, and the tries that count."""
        place = await self.place(job)
        assert place is not None
        return place["status"], place["reason"], place["attempt"]

    async def tables_of(self, job: UUID) -> list[str]:
        """Every table that has a row of this job as its place; one, if all is well."""
        return [
            table
            for table in PLACES
            if await self.db.fetchval(f"SELECT EXISTS (SELECT FROM jobyard.{table} WHERE job = $1)", job)
        ]

    async def count(self, table: str) -> int:
        return await self.db.fetchval(f"SELECT count(*) FROM jobyard.{table}")

    async def level(self, job: UUID) -> int:
        """The suspect level of the lane the job is in."""
        return await self.db.fetchval(
            "SELECT l.suspect FROM jobyard.place p JOIN jobyard.lane l ON l.id = p.lane WHERE p.job = $1", job
        )

    async def events(self, kinds: Iterable[str] | None = None) -> list[tuple[str, int]]:
        """The log so far: the kind of each row and how many jobs it names."""
        rows = await self.db.fetch("SELECT kind, cardinality(jobs) AS jobs FROM jobyard.event ORDER BY seq")
        return [(row["kind"], row["jobs"]) for row in rows if kinds is None or row["kind"] in kinds]

    @asynccontextmanager
    async def locked(self, table: str):
        """Nobody else gets at the table meanwhile."""
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute(f"LOCK TABLE jobyard.{table} IN ACCESS EXCLUSIVE MODE")
            yield

    async def blocked(self) -> int:
        """How many statements wait for a lock in this database."""
        return await self.db.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
        )
