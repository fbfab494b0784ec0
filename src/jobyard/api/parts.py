"""What the endpoints work with."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg

from jobyard.api.pages import Pages
from jobyard.api.patience import Patience
from jobyard.api.waiters import Run, Waiters
from jobyard.config import Settings
from jobyard.domain.errors import DatabaseUnavailable
from jobyard.domain.job import NewJob
from jobyard.ports import Clock
from jobyard.store import reads
from jobyard.store.database import Connection, Pool, borrowed, why
from jobyard.store.intake import Answer, Created, Intake
from jobyard.store.lanes import Lanes

ENVELOPE_BYTES = 64 * 1024
"""What a body may hold beside its payload."""


@dataclass(slots=True)
class Parts:
    settings: Settings
    pool: Pool
    lanes: Lanes
    clock: Clock
    pages: Pages
    intake: Intake = field(init=False)
    waiters: Waiters = field(init=False)
    body_patience: Patience = field(init=False)
    database_patience: Patience = field(init=False)
    draining: bool = False

    def __post_init__(self) -> None:
        settings = self.settings
        self.intake = Intake(
            self.pool,
            self.lanes,
            queue_limit=settings.create_queue,
            timeout=settings.database_timeout_seconds,
        )
        self.body_patience = Patience(settings.body_timeout_seconds)
        self.database_patience = Patience(settings.database_timeout_seconds)
        self.waiters = Waiters(self._finished, self.clock, settings.max_waiters)

    @property
    def create_limit(self) -> int:
        return self.settings.max_payload_bytes + ENVELOPE_BYTES

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[Connection]:
        """A connection, for as long as a request may wait for the database. Raises DatabaseUnavailable."""
        seconds = self.settings.database_timeout_seconds
        try:
            with self.database_patience():
                async with borrowed(self.pool, seconds) as connection:
                    yield connection
        except (TimeoutError, asyncpg.PostgresError) as trouble:
            raise DatabaseUnavailable(why(trouble)) from trouble

    async def create(self, job: NewJob) -> Created:
        """Raises DatabaseUnavailable when the commit does not come in time; it may still come later."""
        try:
            with self.database_patience():
                return await self.intake.create(job)
        except TimeoutError as trouble:
            raise DatabaseUnavailable("the commit did not come in time") from trouble

    async def create_many(self, jobs: Sequence[NewJob]) -> list[Answer]:
        return await self.intake.create_many(jobs)

    async def drain(self) -> None:
        """Let nobody wait any more, and commit every create that has been taken in."""
        self.draining = True
        await self.waiters.drain()
        await self.intake.drain()

    async def _finished(self, runs: Sequence[Run]) -> list[Run]:
        async with self.reading() as connection:
            return await reads.finished(connection, runs)
