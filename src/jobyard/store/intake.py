"""Creates, gathered into flushes by natural batching.

The first create flushes at once; while at most two flushes are in flight the others gather. There is no timer: a
lone client never waits for company, a crowd shares its commits. A create is answered only after its commit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from jobyard.domain.errors import (
    DatabaseUnavailable,
    IdempotencyMismatch,
    InvalidJob,
    JobyardError,
    Overloaded,
)
from jobyard.domain.job import IDEMPOTENCY_HOURS, NewJob
from jobyard.store.database import Connection, Pool, borrowed, repeated_when_transient
from jobyard.store.lanes import Lanes
from jobyard.store.statements import statement
from jobyard.telemetry import metrics

FLUSHES_IN_FLIGHT = 2
FLUSH_ROWS = 256
FLUSH_BYTES = 32 << 20
"""Of payloads in one statement: the server takes no message of 1 GB."""

POISON = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    InvalidJob,
)
"""What a row itself can cause, so that leaving it out lets its neighbours in."""


@dataclass(frozen=True, slots=True)
class Created:
    """The job that answers a create. `replayed`: an earlier create with the same key and body made it."""

    id: UUID
    replayed: bool = False


Answer = Created | JobyardError


class Intake:
    """Creates jobs. Every method answers after the commit, or raises and has created nothing it knows of."""

    def __init__(self, pool: Pool, lanes: Lanes, *, queue_limit: int, timeout: float) -> None:
        self._pool = pool
        self._lanes = lanes
        self._queue_limit = queue_limit
        self._timeout = timeout
        self._in_bulks = 0
        self._waiting: deque[tuple[NewJob, asyncio.Future[Created]]] = deque()
        self._flushes: set[asyncio.Task[None]] = set()
        self._untold: set[int] = set()
        """New lanes that no flush has told the workers of yet: the first one may have been refused."""

    @property
    def waiting(self) -> int:
        """How many creates have not been answered: those that no flush has taken yet, and all of the bulks."""
        return len(self._waiting) + self._in_bulks

    async def create(self, job: NewJob) -> Created:
        """One job, in the next flush. Raises Overloaded when the bounded queue is full."""
        if self.waiting >= self._queue_limit:
            raise self._full()
        future: asyncio.Future[Created] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, future))
        if len(self._flushes) < FLUSHES_IN_FLIGHT:
            task = asyncio.create_task(self._flush_until_empty(), name="flush")
            self._flushes.add(task)
        return await future

    async def create_many(self, jobs: Sequence[NewJob]) -> list[Answer]:
        """Many jobs in one flush; each is answered on its own, in the order given. Raises Overloaded when they would
        overfill the bounded queue; where nobody else waits, any number is taken."""
        if self.waiting and self.waiting + len(jobs) > self._queue_limit:
            raise self._full()
        self._in_bulks += len(jobs)
        try:
            answers = await self._answers(jobs)
        finally:
            self._in_bulks -= len(jobs)
        if answers and all(isinstance(answer, DatabaseUnavailable) for answer in answers):
            raise answers[0]  # pyright: ignore[reportGeneralTypeIssues] - all of them are that error
        return answers

    async def create_within(self, connection: Connection, job: NewJob) -> Created:
        """One job in a transaction of the caller's, which makes it or takes it back. Raises InvalidJob."""
        (answer,) = await self._insert(connection, [job])
        if isinstance(answer, Created):
            return answer
        raise answer

    def _full(self) -> Overloaded:
        return Overloaded(f"{self._queue_limit} creates are waiting for the database already")

    async def drain(self) -> None:
        """Wait until everything handed in has been flushed."""
        while self._flushes:
            await asyncio.wait(self._flushes)

    async def _flush_until_empty(self) -> None:
        try:
            while self._waiting:
                await self._flush_some()
        finally:
            # In the same step as the look at the queue: a done callback would come after a client that creates
            # again at once, who would count on this flush and wait for ever.
            self._flushes -= {asyncio.current_task()}

    async def _flush_some(self) -> None:
        batch = self._next_batch()
        answers = await self._answers([job for job, _ in batch])
        for (_, future), answer in zip(batch, answers, strict=True):
            # A client that went away cancelled its future; its row is committed all the same.
            if future.done():
                continue
            if isinstance(answer, Created):
                future.set_result(answer)
            else:
                future.set_exception(answer)

    def _next_batch(self) -> list[tuple[NewJob, asyncio.Future[Created]]]:
        """At most FLUSH_ROWS, and no more bytes than FLUSH_BYTES, but one job at least."""
        batch = [self._waiting.popleft()]
        size = len(batch[0][0].payload)
        while self._waiting and len(batch) < FLUSH_ROWS:
            size += len(self._waiting[0][0].payload)
            if size > FLUSH_BYTES:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _answers(self, jobs: Sequence[NewJob]) -> list[Answer]:
        """One answer a job. A statement can ask for a key once: its first use goes in, its repeats come after."""
        first: dict[tuple[int, str], NewJob] = {}
        for job in jobs:
            if job.idempotency:
                first.setdefault((job.tenant, job.idempotency.key), job)
        distinct = [
            job for job in jobs if job.idempotency is None or first[job.tenant, job.idempotency.key] is job
        ]
        answers = dict(zip((job.id for job in distinct), await self._flush(distinct), strict=True))
        for job in jobs:
            if job.id not in answers:
                assert job.idempotency is not None
                original = first[job.tenant, job.idempotency.key]
                answers[job.id] = await self._repeat(job, original, answers[original.id])
        return [answers[job.id] for job in jobs]

    async def _repeat(self, job: NewJob, original: NewJob, answer: Answer) -> Answer:
        """An exact repeat shares the answer of the original; another body is judged by whoever holds the key now."""
        if job.idempotency == original.idempotency:
            return Created(answer.id, replayed=True) if isinstance(answer, Created) else answer
        return (await self._flush([job]))[0]

    async def _flush(self, jobs: Sequence[NewJob]) -> list[Answer]:
        try:
            async with borrowed(self._pool, self._timeout) as connection:
                return await self._insert_halving(connection, jobs)
        except DatabaseUnavailable as trouble:
            return [trouble] * len(jobs)
        except Exception as surprise:  # whatever happened, every waiter gets an answer
            return [DatabaseUnavailable(f"the flush failed: {type(surprise).__name__}: {surprise}")] * len(
                jobs
            )

    async def _insert_halving(self, connection: Connection, jobs: Sequence[NewJob]) -> list[Answer]:
        """Insert all, or find by halving the rows that PostgreSQL refuses: a poison row fails alone."""
        try:
            return await repeated_when_transient(lambda: self._insert(connection, jobs))
        except POISON as refusal:
            if len(jobs) == 1:
                return [
                    refusal
                    if isinstance(refusal, InvalidJob)
                    else InvalidJob(f"the database refused it: {refusal}")
                ]
            middle = len(jobs) // 2
            return [
                *await self._insert_halving(connection, jobs[:middle]),
                *await self._insert_halving(connection, jobs[middle:]),
            ]

    async def _insert(self, connection: Connection, jobs: Sequence[NewJob]) -> list[Answer]:
        lanes: list[int] = []
        for job in jobs:
            lane = self._lanes.known(job.lane)
            if lane is None:
                lane, made = await self._lanes.id_of(connection, job.lane)
                if made:
                    self._untold.add(lane)
            lanes.append(lane)
        created: list[UUID] | None = await connection.fetchval(
            statement("create"), *_columns(jobs, lanes), not self._untold.isdisjoint(lanes), IDEMPOTENCY_HOURS
        )
        self._untold.difference_update(lanes)
        inserted = set(created or ())
        metrics.FLUSH_JOBS.of().observe(len(jobs))
        metrics.created(job.lane for job in jobs if job.id in inserted)
        return [
            Created(job.id) if job.id in inserted else await self._existing(connection, job) for job in jobs
        ]

    async def _existing(self, connection: Connection, job: NewJob) -> Answer:
        """Who holds the job's key, asked in a new statement; nobody any more means: create it after all."""
        assert job.idempotency is not None
        held = await connection.fetchrow(statement("idempotency_find"), job.tenant, job.idempotency.key)
        if held is None:
            return (await self._insert(connection, [job]))[0]
        if held["digest"] != job.idempotency.digest:
            return IdempotencyMismatch("this key was used within 24 hours for a request with another body")
        return Created(held["job"], replayed=True)


def _columns(jobs: Sequence[NewJob], lanes: list[int]) -> list[list[object]]:
    """The arrays of create.sql, in its order."""
    return [
        [job.id for job in jobs],
        [job.tenant for job in jobs],
        [*lanes],
        [job.type for job in jobs],
        [job.queue for job in jobs],
        [job.priority for job in jobs],
        [job.max_attempts for job in jobs],
        [job.timeout_seconds for job in jobs],
        [job.backoff.base_seconds for job in jobs],
        [job.backoff.cap_seconds for job in jobs],
        [job.run_at for job in jobs],
        [job.delay_seconds for job in jobs],
        [job.payload for job in jobs],
        [job.tags for job in jobs],
        [job.metadata for job in jobs],
        [job.trace for job in jobs],
        [job.idempotency.key if job.idempotency else None for job in jobs],
        [job.idempotency.digest if job.idempotency else None for job in jobs],
    ]
