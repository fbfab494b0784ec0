"""What people ask of one job that exists: to be cancelled, to be tried again.

Each verb looks with one plain SELECT over all places, acts there by a statement that is guarded by what it saw, and
looks again where the job had moved meanwhile. The lock on the job's row only makes verbs and retention take turns.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import TypeVar
from uuid import UUID

import asyncpg

from jobyard.domain import lifecycle
from jobyard.domain.errors import NotFound
from jobyard.domain.lifecycle import CANCELLED_WHILE_PENDING, Status
from jobyard.store.database import Connection, repeated_when_transient, values
from jobyard.store.statements import statement

A = TypeVar("A")


class Cancelled(Enum):
    """What became of the wish that a job ends."""

    AT_ONCE = "at once"
    ASKED = "asked"
    """An attempt runs: its handler is told, and may still complete the job."""


async def cancel(connection: Connection, job: UUID, tenant: int) -> Cancelled:
    """End a pending job, or ask the running attempt to end. Raises NotFound, and WrongState for a job that is over."""

    async def act(place: asyncpg.Record) -> Cancelled | None:
        if lifecycle.cancel(Status(place["status"])) is Status.FAILED:
            error = json.dumps(CANCELLED_WHILE_PENDING)
            ended = await connection.fetchval(statement("cancel_waiting"), job, error)
            return None if ended is None else Cancelled.AT_ONCE
        asked = await connection.fetchval(statement("cancel_running"), job)
        return None if asked is None else Cancelled.ASKED

    return await _on_one(connection, job, tenant, act)


async def retry(connection: Connection, job: UUID, tenant: int) -> int:
    """Start the next run of a failed job; its number. Raises NotFound, and WrongState for a job that is not failed."""

    async def act(place: asyncpg.Record) -> int | None:
        lifecycle.redrive(Status(place["status"]))
        redriven = await _redrive(connection, [job], [place["run"]])
        return place["run"] + 1 if redriven else None

    return await _on_one(connection, job, tenant, act)


async def redrive(
    connection: Connection, failed: Sequence[tuple[UUID, int]], *, every: float = 0.0, first: int = 0
) -> set[UUID]:
    """Start the next runs of these jobs that failed in these runs; which there were still to start. `every`: seconds
    from one job to the next, where they are not to run all at once; `first`: the place in that row of the first."""

    async def act(jobs: Sequence[UUID], runs: Sequence[int]) -> set[UUID]:
        return await _redrive(connection, jobs, runs, every, first)

    return await with_locked(connection, failed, act)


async def with_locked(
    connection: Connection,
    failed: Sequence[tuple[UUID, int]],
    act: Callable[[Sequence[UUID], Sequence[int]], Awaitable[set[UUID]]],
) -> set[UUID]:
    """Act on those of these jobs, each with its failed run, that are still there; no other verb touches them meanwhile."""
    ordered = sorted(failed)

    async def locked() -> set[UUID]:
        async with connection.transaction():
            there = set(
                values(await connection.fetch(statement("lock_jobs"), [job for job, _ in ordered]), "id")
            )
            left = [(job, run) for job, run in ordered if job in there]
            return await act([job for job, _ in left], [run for _, run in left])

    return await repeated_when_transient(locked)


async def _redrive(
    connection: Connection, jobs: Sequence[UUID], runs: Sequence[int], every: float = 0.0, first: int = 0
) -> set[UUID]:
    return set(await connection.fetchval(statement("redrive"), jobs, runs, every, first) or ())


async def _on_one(
    connection: Connection,
    job: UUID,
    tenant: int,
    act: Callable[[asyncpg.Record], Awaitable[A | None]],
) -> A:
    """The verb's answer. It acts on the place it is shown; None: the job had left it."""

    async def locked() -> A:
        async with connection.transaction():
            await connection.fetch(statement("lock_jobs"), [job])
            while True:
                place = await connection.fetchrow(statement("place_of"), job, tenant)
                if place is None:
                    raise NotFound(str(job))
                if (answer := await act(place)) is not None:
                    return answer

    return await repeated_when_transient(locked)
