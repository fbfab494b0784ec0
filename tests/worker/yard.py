"""A real database, jobs in it, and workers in this process: what the tests of the worker talk about."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg

from jobyard.bus.listener import Listener
from jobyard.bus.polling import Polling
from jobyard.clock import SystemClock
from jobyard.domain.job import NewJob
from jobyard.domain.lifecycle import Change
from jobyard.ids import new_job_id
from jobyard.maintain.announcer import Announcer
from jobyard.maintain.maintainer import CONNECTIONS as MAINTAINER_CONNECTIONS
from jobyard.maintain.maintainer import Maintainer
from jobyard.maintain.relay import Relay
from jobyard.ports import EventBus, WakeUp, WakeUps
from jobyard.store.database import Connection, Pool, open_pool
from jobyard.store.dispatch import Claimed, Ending, Lane
from jobyard.store.intake import Created, Intake
from jobyard.store.lanes import Lanes
from jobyard.worker.children import ChildOptions, Children
from jobyard.worker.claimer import Listen
from jobyard.worker.handlers import Handlers
from jobyard.worker.hearing import Hearing
from jobyard.worker.heartbeat import Heartbeat
from jobyard.worker.link import HandlerDatabase
from jobyard.worker.pool import CONNECTIONS, Worker, WorkerOptions
from jobyard.worker.runner import Runner

MAX_RESULT_BYTES = 1 << 20
NAMESPACE = "test"


def claimed(payload: str = "{}", **columns: Any) -> Claimed:
    """An attempt as a claim answers it, without a database."""
    from datetime import UTC, datetime

    values = {
        "job": new_job_id(),
        "lease": 1,
        "lane": 1,
        "run": 1,
        "attempt": 1,
        "crashes": 0,
        "type": "t",
        "queue": "default",
        "payload": payload,
        "timeout_seconds": 60.0,
        "max_attempts": 5,
        "backoff_base": 2.0,
        "backoff_cap": 60.0,
        "tags": None,
        "metadata": None,
        "trace": None,
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Claimed(**values | columns)


def a_lane(id: int, priority: int = 5, suspect: int = 0, queue: str = "default") -> Lane:
    return Lane(id, 1, queue, "t", priority, suspect)


def handlers(functions: dict[str, Callable[..., Any]]) -> Handlers:
    bound = Handlers()
    for type, function in functions.items():
        bound.add(type, function)
    return bound


async def until(condition: Callable[[], Any], what: str = "the condition", seconds: float = 15.0) -> Any:
    """The first true answer of the condition, awaited if it is awaitable, asked until the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if isinstance(answer, Awaitable):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.005)


class DeafBus:
    """An event bus that delivers nothing."""

    healthy = False

    @asynccontextmanager
    async def subscribe(self, on_wake: Callable[[WakeUp], None]) -> AsyncGenerator[None]:
        yield


@dataclass
class Yard:
    url: str
    db: Connection
    pool: Pool
    lanes: Lanes = field(default_factory=Lanes)

    async def add(self, type: str = "t", count: int = 1, payload: Any = None, **options: Any) -> list[UUID]:
        """New jobs, created as the API creates them."""
        text = json.dumps(payload if payload is not None else {})
        jobs = [NewJob(**{"id": new_job_id(), "type": type, "payload": text} | options) for _ in range(count)]
        answers = await Intake(self.pool, self.lanes, queue_limit=10, timeout=10).create_many(jobs)
        assert all(isinstance(answer, Created) for answer in answers)
        return [job.id for job in jobs]

    async def place(self, job: UUID) -> asyncpg.Record:
        row = await self.db.fetchrow(
            "SELECT * FROM jobyard.place WHERE job = $1 ORDER BY run DESC LIMIT 1", job
        )
        assert row is not None
        return row

    async def status(self, job: UUID) -> str:
        return (await self.place(job))["status"]

    async def status_all(self, jobs: list[UUID], status: str) -> bool:
        return all([await self.status(job) == status for job in jobs])

    async def end_of(self, job: UUID, seconds: float = 15.0) -> asyncpg.Record:
        """The job's row in `done`, once it is there."""
        return await until(
            lambda: self.db.fetchrow("SELECT * FROM jobyard.done WHERE job = $1", job),
            f"{job} ended",
            seconds,
        )

    async def all_ended(self, seconds: float = 30.0) -> None:
        await until(
            lambda: self.db.fetchval(
                "SELECT (SELECT count(*) FROM jobyard.job) = (SELECT count(*) FROM jobyard.done)"
            ),
            "all jobs ended",
            seconds,
        )

    async def tries(self, job: UUID) -> list[tuple[int, str]]:
        """Number and outcome of the attempts that did not end the job, in order."""
        rows = await self.db.fetch(
            "SELECT attempt, outcome FROM jobyard.attempt WHERE job = $1 ORDER BY lease", job
        )
        return [(row["attempt"], row["outcome"]) for row in rows]

    async def count(self, table: str) -> int:
        return await self.db.fetchval(f"SELECT count(*) FROM jobyard.{table}")

    async def terminate_sessions(self, name: str = "%") -> int:
        """Cut every other connection to this database whose application has such a name."""
        return await self.db.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE $1",
            name,
        )

    @asynccontextmanager
    async def held(self, table: str) -> AsyncGenerator[None]:
        """Nobody can write to the table meanwhile."""
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute(f"LOCK TABLE jobyard.{table} IN SHARE MODE")
            yield

    async def blocked(self) -> int:
        """How many statements wait for a lock in this database."""
        return await self.db.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
        )

    @asynccontextmanager
    async def working(
        self,
        functions: dict[str, Callable[..., Any]] | Handlers,
        *,
        children: ChildOptions | None = None,
        concurrency: int = 4,
        lease: float = 30.0,
        grace: float = 2.0,
        wakeups: WakeUps | None = None,
        broker: EventBus | None = None,
        ack_at_end: bool = False,
        listen: Listen | None = None,
    ) -> AsyncGenerator[Working]:
        """A worker that runs, as the composition root builds it, and that is drained at the end."""
        clock = SystemClock()
        pool = await open_pool(self.url, size=CONNECTIONS, hot=True, name="jobyard worker")
        database = HandlerDatabase(self.url, 2, MAX_RESULT_BYTES)
        worker = Worker(
            pool,
            wakeups or (Polling() if broker or listen else Listener(self.url, clock)),
            clock,
            functions if isinstance(functions, Handlers) else handlers(functions),
            WorkerOptions(concurrency, lease, grace, MAX_RESULT_BYTES, ack_at_end),
            lambda on_expired: Heartbeat(self.url, lease, on_expired),
            Children(children) if children else None,
            database,
            (lambda types, inbox, room: Hearing(broker, NAMESPACE, types, clock, inbox, room))
            if broker
            else listen,
        )
        working = Working(worker, asyncio.create_task(worker.run()))
        try:
            yield working
        finally:
            try:
                await working.drain()
            finally:
                database.close()
                pool.terminate()

    @asynccontextmanager
    async def announcing(self, bus: EventBus, ahead: int = 1000) -> AsyncGenerator[Maintainer]:
        """A maintainer that announces over this bus."""
        clock = SystemClock()
        async with self.maintaining(
            lambda pool: Announcer(pool, Listener(self.url, clock), bus, NAMESPACE, ahead, clock)
        ) as maintainer:
            yield maintainer

    @asynccontextmanager
    async def relaying(self, bus: EventBus) -> AsyncGenerator[Maintainer]:
        """A maintainer that publishes events over this bus."""
        async with self.maintaining(
            relay=lambda pool: Relay(pool, bus, NAMESPACE, SystemClock())
        ) as maintainer:
            yield maintainer

    @asynccontextmanager
    async def maintaining(
        self,
        announcer: Callable[[Pool], Announcer] | None = None,
        relay: Callable[[Pool], Relay] | None = None,
    ) -> AsyncGenerator[Maintainer]:
        pool = await open_pool(self.url, size=MAINTAINER_CONNECTIONS, hot=True, name="jobyard maintain")
        maintainer = Maintainer(
            pool, SystemClock(), 7, 90, announcer and announcer(pool), relay and relay(pool)
        )
        task = asyncio.create_task(maintainer.run())
        try:
            yield maintainer
        finally:
            maintainer.stop()
            await asyncio.wait_for(task, 10)


@dataclass
class Working:
    worker: Worker
    task: asyncio.Task[None]

    async def drain(self) -> float:
        """Tell it to stop and wait for its end; how many seconds that took. What ended it in error is raised."""
        began = time.monotonic()
        self.worker.stop()
        await asyncio.wait_for(asyncio.shield(self.task), 20)
        return time.monotonic() - began

    async def started(self) -> int:
        """Its id, once it has one."""
        return await until(lambda: self.worker.id, "the worker has an id")

    async def idle(self, yard: Yard) -> None:
        """Wait until it has told the database that it waits for work."""
        await until(
            lambda: yard.db.fetchval("SELECT idle FROM jobyard.worker WHERE id = $1", self.worker.id),
            "the worker is idle",
        )


@dataclass
class Bench:
    """A runner without a worker around it."""

    runner: Runner
    endings: list[Ending] = field(default_factory=list[Ending])

    def start(self, suspect: int = 0, **columns: Any) -> Claimed:
        attempt = claimed(**{"lease": len(self.endings) + 1000} | columns)
        self.runner.accept(attempt, a_lane(1, suspect=suspect), time.monotonic())
        self.runner.start_waiting()
        return attempt

    async def change_of(self, attempt: Claimed) -> Change:
        """How it ended."""
        return (
            await until(
                lambda: next((ending for ending in self.endings if ending.lease == attempt.lease), None),
                "it ended",
            )
        ).change


MakeBench = Callable[..., Bench]


@asynccontextmanager
async def benches() -> AsyncGenerator[MakeBench]:
    """Makes runners with these handlers by type, which end with the context."""
    made: list[tuple[Bench, asyncio.Task[None]]] = []

    def make(
        functions: dict[str, Callable[..., Any]] | Handlers,
        concurrency: int = 4,
        children: ChildOptions | None = None,
    ) -> Bench:
        endings: list[Ending] = []
        runner = Runner(
            functions if isinstance(functions, Handlers) else handlers(functions),
            concurrency,
            MAX_RESULT_BYTES,
            SystemClock(),
            endings.append,
            lambda: None,
            Children(children) if children else None,
        )
        bench = Bench(runner, endings)
        made.append((bench, asyncio.create_task(runner.enforce_deadlines())))
        return bench

    yield make
    for bench, deadlines in made:
        deadlines.cancel()
        await bench.runner.close()
