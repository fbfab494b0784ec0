"""What ties a handler to the worker that runs it, in whatever process: what it says while it runs, and what it is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, Unpack
from uuid import UUID

import asyncpg
import msgspec

from jobyard.domain import lifecycle
from jobyard.domain.errors import LeaseLost
from jobyard.domain.job import NewJob
from jobyard.store import dispatch
from jobyard.store.database import Connection, Pool, open_pool
from jobyard.store.dispatch import Claimed
from jobyard.store.intake import Intake
from jobyard.store.lanes import Lanes
from jobyard.worker.new_jobs import JobOptions, new_job
from jobyard.worker.texts import json_text

R = TypeVar("R")

CREATES_WAITING = 10_000
CREATE_SECONDS = 30.0


class Progress(msgspec.Struct, tag="progress", frozen=True):
    """How far the attempt has come."""

    percent: float | None
    message: str | None


class LogLine(msgspec.Struct, tag="log", frozen=True):
    """What it wrote onto its job. `at`: of this machine's monotonic clock, which its processes share."""

    at: float
    level: str
    text: str


class Committed(msgspec.Struct, tag="committed", frozen=True):
    """It has completed its job itself, in a transaction of its own. `result`: JSON text."""

    result: str | None


Told = Progress | LogLine | Committed


class HandlerDatabase:
    """What handlers do on the database: a pool with the server's own planner settings, opened when it is first used.
    `pooler`: the address passes one."""

    def __init__(self, url: str, size: int, max_payload_bytes: int, *, pooler: bool = False) -> None:
        self._url = url
        self._pooler = pooler
        self._size = size
        self.max_payload_bytes = max_payload_bytes
        self._lanes = Lanes()
        self._opening = asyncio.Lock()
        self._pool: Pool | None = None
        self._intake: Intake | None = None

    async def pool(self) -> Pool:
        async with self._opening:
            if self._pool is None:
                self._pool = await open_pool(
                    self._url, size=self._size, hot=False, pooler=self._pooler, name="jobyard handlers"
                )
            return self._pool

    async def intake(self) -> Intake:
        pool = await self.pool()
        if self._intake is None:
            self._intake = Intake(pool, self._lanes, queue_limit=CREATES_WAITING, timeout=CREATE_SECONDS)
        return self._intake

    def close(self) -> None:
        if self._pool is not None:
            self._pool.terminate()


class Transaction:
    """A transaction on the database of the jobs, whose commit also completes the job. `connection` is asyncpg's; what is
    done on it, and the jobs that `create` makes, happen exactly once, together with the job's completion. `result` is
    what the job then has as its result."""

    def __init__(self, connection: asyncpg.pool.PoolConnectionProxy[asyncpg.Record], link: Link) -> None:
        self.connection = connection
        self.result: Any = None
        self._link = link

    async def create(self, type: str, payload: Any = None, **options: Unpack[JobOptions]) -> UUID:
        """Another job, if this transaction commits. Raises InvalidJob."""
        intake = await self._link.database.intake()
        created = await intake.create_within(self.connection, self._link.asked(type, payload, **options))
        return created.id


@dataclass(slots=True)
class Link:
    """One attempt's. `tell` may be called from any thread; `block` runs a coroutine where the database is and waits for
    it, for handlers that are no coroutines themselves; a handler that is tried out alone has no job."""

    claimed: Claimed
    given_database: HandlerDatabase | None
    tell: Callable[[Told], None]
    is_told_to_end: Callable[[], bool]
    block: Callable[[Coroutine[Any, Any, Any]], Any]
    has_job: bool = True
    ends_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.ends_at = time.monotonic() + self.claimed.timeout_seconds

    @property
    def database(self) -> HandlerDatabase:
        if self.given_database is None:
            raise RuntimeError("this handler runs without a database")
        return self.given_database

    def asked(self, type: str, payload: Any, **options: Unpack[JobOptions]) -> NewJob:
        return new_job(type, payload, self.database.max_payload_bytes, self.claimed.trace, **options)

    async def create(self, type: str, payload: Any, **options: Unpack[JobOptions]) -> UUID:
        job = self.asked(type, payload, **options)
        return (await (await self.database.intake()).create(job)).id

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Transaction]:
        pool = await self.database.pool()
        async with pool.acquire() as connection, connection.transaction():
            transaction = Transaction(connection, self)
            yield transaction
            result = _result(transaction.result, self.database.max_payload_bytes)
            await self._complete(connection, result)
        self.tell(Committed(result))

    async def _complete(self, connection: Connection, result: str | None) -> None:
        claimed = self.claimed
        change = lifecycle.complete(claimed.attempt, claimed.crashes, result)
        if self.has_job and not await dispatch.settle_within(connection, claimed.job, claimed.lease, change):
            raise LeaseLost(
                f"the attempt of job {claimed.job} is not this worker's any more; nothing was written"
            )


def _result(value: Any, limit: int) -> str | None:
    return None if value is None else json_text(value, "the result", limit)
