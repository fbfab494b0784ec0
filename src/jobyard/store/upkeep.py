"""What maintainers do: promote what is due, take back what was abandoned, delete what is old. Any number of them may
run at once; each statement is safe against the others."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from jobyard.domain.job import LaneKey
from jobyard.domain.lifecycle import Cause, TimedOut, abandon, settle
from jobyard.store.database import Connection, repeated_when_transient, values
from jobyard.store.dispatch import Ending, Held, move_back
from jobyard.store.lanes import Lanes
from jobyard.store.statements import statement

PROMOTE_ROWS = 1000
SWEEP_ROWS = 1000
DELETE_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep found: the workers that stopped beating, and which way each attempt went, from its lane."""

    workers: list[tuple[int, str]]
    ways: list[tuple[LaneKey, Cause]]

    @property
    def attempts(self) -> int:
        return len(self.ways)

    @property
    def causes(self) -> dict[Cause, int]:
        return dict(Counter(cause for _, cause in self.ways))


async def promote(connection: Connection, now: datetime | None = None) -> int:
    """Move up to PROMOTE_ROWS due jobs to ready; how many there were. `now` is given only by tests."""
    return await connection.fetchval(statement("promote"), PROMOTE_ROWS, now)


async def seconds_until_due(connection: Connection) -> float | None:
    """Until the next scheduled job is due (negative: overdue), or None when none waits."""
    return await connection.fetchval(statement("next_due"))


async def sweep(connection: Connection, lanes: Lanes, now: datetime | None = None) -> Swept:
    """Take back the attempts of dead workers and those past their deadline.

    Three statements in one transaction and never one: each sees, in a new snapshot, what was committed before the
    rows it builds on were locked.
    """

    async def once() -> Swept:
        async with connection.transaction():
            workers = await connection.fetch(statement("expire_workers"), now)
            rows = await connection.fetch(statement("lock_abandoned"), SWEEP_ROWS)
            endings = [_ending(row) for row in rows]
            moved = await move_back(connection, lanes, endings)
        ways = [
            (ending.lane, Cause.CANCELLED if ending.job in moved.cancelled else ending.change.cause)
            for ending in endings
        ]
        return Swept([(row["id"], row["name"]) for row in workers], ways)

    return await repeated_when_transient(once)


def _ending(row: asyncpg.Record) -> Ending:
    held = Held.read(row)
    if row["overdue"]:
        return held.ended(settle(held.standing, TimedOut(row["timeout_seconds"]), random.random()))
    return held.ended(abandon(held.standing, random.random()))


async def delete_finished(connection: Connection, completed_seconds: float, failed_seconds: float) -> int:
    """Delete one batch of jobs whose last run ended longer ago than its outcome is kept; how many went.

    Two statements: the first locks the jobs, the second deletes, in a new snapshot, those that are still over.
    """

    async def once() -> int:
        async with connection.transaction():
            rows = await connection.fetch(
                statement("retention_lock"), completed_seconds, failed_seconds, DELETE_ROWS
            )
            if not rows:
                return 0
            gone = await connection.fetchval(
                statement("retention_delete"), values(rows, "job"), values(rows, "run")
            )
            return len(gone or ())

    return await repeated_when_transient(once)


async def delete_expired_keys(connection: Connection) -> int:
    return await connection.fetchval(statement("idempotency_expire"), DELETE_ROWS)


async def delete_old_events(connection: Connection, older_than_seconds: float) -> int:
    return await connection.fetchval(statement("event_expire"), older_than_seconds, DELETE_ROWS)
