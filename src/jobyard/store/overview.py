"""What an operator looks at: workers and queues. The numbers of jobs come from the sample (sampling.py)."""

from __future__ import annotations

import asyncpg

from jobyard.store.database import Connection
from jobyard.store.statements import statement

NEWEST_WORKER = (1 << 63) - 1


async def workers(connection: Connection, below: int, size: int) -> list[asyncpg.Record]:
    """The columns of workers.sql, newest first, at most `size`."""
    return await connection.fetch(statement("workers"), below, size)


async def worker_totals(connection: Connection) -> asyncpg.Record:
    """`live`, `slots` and `idle` of all living workers."""
    row = await connection.fetchrow(statement("worker_totals"))
    assert row is not None
    return row


async def workers_by_type(connection: Connection) -> dict[str, int]:
    """How many living workers know each type. A type that is missing has none."""
    return {row["type"]: row["workers"] for row in await connection.fetch(statement("worker_types"))}


async def queues(connection: Connection, tenant: int, above: str, size: int) -> dict[str, list[str]]:
    """The types that were ever put into each queue, by name, at most `size` queues."""
    rows = await connection.fetch(statement("queues"), tenant, above, size)
    return {row["queue"]: row["types"] for row in rows}
