"""Looking at jobs. Each read is one statement, so one snapshot: a job that moves meanwhile is seen in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from jobyard.domain.lifecycle import Status
from jobyard.store.database import Connection
from jobyard.store.statements import statement

EXAMINE_ROWS = 10_000
"""How many candidates a list looks at for one page, at most."""

NEWEST = UUID(int=(1 << 128) - 1)
NEWEST_LEASE = (1 << 63) - 1
BEFORE_ALL_LINES = (0, 0)

_SOURCES = {
    None: "SELECT id AS job FROM jobyard.job WHERE id < $2",
    Status.PENDING: "SELECT job FROM (SELECT job FROM jobyard.ready UNION ALL SELECT job FROM jobyard.scheduled) w"
    " WHERE job < $2",
    Status.PROCESSING: "SELECT job FROM jobyard.active WHERE job < $2",
    Status.COMPLETED: "SELECT DISTINCT job FROM jobyard.done WHERE job < $2",
    Status.FAILED: "SELECT DISTINCT job FROM jobyard.done WHERE job < $2 AND status = 'failed'",
}
"""Where a list of jobs with this status starts: each job once, though it may have ended in several runs. Completed ones
have no index of their own (nearly all are): the failed among them count as examined."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Which jobs to list. `metadata` is JSON text of the pairs that must all be there."""

    status: Status | None = None
    type: str | None = None
    queue: str | None = None
    tag: str | None = None
    metadata: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """`rows` as list.sql selects them; `last` is the id behind which the next page starts, None at the end."""

    rows: list[asyncpg.Record]
    last: UUID | None


_TAGGED = "SELECT job FROM (SELECT id AS job FROM jobyard.job WHERE tags ? $8 OFFSET 0) t WHERE job < $2"
_DESCRIBED = (
    "SELECT job FROM (SELECT id AS job FROM jobyard.job WHERE metadata @> $9 OFFSET 0) t WHERE job < $2"
)
"""Where a list starts whose tag or metadata few jobs have: all of them, by their index."""

SOURCES = (*_SOURCES.values(), _TAGGED, _DESCRIBED)
"""Every form of the list, for the tests that hold each to its plan."""


def list_statement(status: Status | None) -> str:
    return _from_source(_SOURCES[status])


def _from_source(source: str) -> str:
    return statement("list").replace("{source}", source)


async def _best_statement(connection: Connection, filters: Filters, examine: int) -> str:
    """A tag or metadata that few jobs have is found by its index; what many have is met soon enough on the way."""
    for count, asked, source in (
        ("count_tagged", filters.tag, _TAGGED),
        ("count_described", filters.metadata, _DESCRIBED),
    ):
        if asked is not None and await connection.fetchval(statement(count), asked, examine) < examine:
            return _from_source(source)
    return list_statement(filters.status)


async def get(connection: Connection, job: UUID, tenant: int) -> asyncpg.Record | None:
    """The columns of get.sql, or None for no such job."""
    return await connection.fetchrow(statement("get"), job, tenant)


async def list_jobs(
    connection: Connection, tenant: int, filters: Filters, below: UUID, size: int, examine: int = EXAMINE_ROWS
) -> Page:
    """Up to `size` jobs with ids below `below`, newest first. A page may be short and still have a successor."""
    found = await connection.fetch(
        await _best_statement(connection, filters, examine),
        tenant,
        below,
        examine,
        size + 1,
        filters.status.value if filters.status else None,
        filters.type,
        filters.queue,
        filters.tag,
        filters.metadata,
        filters.created_after,
        filters.created_before,
    )
    rows = [row for row in found if row["id"] is not None]
    if len(rows) > size:
        return Page(rows[:size], rows[size - 1]["id"])
    return Page(rows, found[0]["examined"])


async def attempts(
    connection: Connection, job: UUID, below: int, size: int, *, all_ends: bool = False
) -> list[asyncpg.Record]:
    """The columns of attempts.sql, newest first, at most `size`. `all_ends`: also of runs that ended while pending."""
    return await connection.fetch(statement("attempts"), job, below, size, all_ends)


async def job_log(
    connection: Connection, job: UUID, after: tuple[int, int], size: int
) -> list[asyncpg.Record]:
    """The columns of job_log.sql, oldest first, behind this (lease, line), at most `size`."""
    return await connection.fetch(statement("job_log"), job, *after, size)


async def finished(connection: Connection, waited_for: Sequence[tuple[UUID, int]]) -> list[tuple[UUID, int]]:
    """Which of these (job, run) are over."""
    rows = await connection.fetch(
        statement("finished"), [job for job, _ in waited_for], [run for _, run in waited_for]
    )
    return [(row["job"], row["run"]) for row in rows]
