"""The hot path: claim, settle, hand back, and the worker's own row. Every write carries the lease it is about."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import msgspec

from jobyard.domain.announcement import Announcement
from jobyard.domain.errors import WorkerExpired
from jobyard.domain.job import LaneKey
from jobyard.domain.lifecycle import Change, Standing, Status
from jobyard.domain.retry import Backoff
from jobyard.store.database import Connection, repeated_when_transient, values
from jobyard.store.lanes import Lanes
from jobyard.store.statements import statement

ATTEMPTS_KEPT = 1000
"""Of one job, the newest: an attempt that gives back its try may be followed by another without end."""


@dataclass(frozen=True)
class Lane:
    id: int
    tenant: int
    queue: str
    type: str
    priority: int
    suspect: int

    @cached_property
    def key(self) -> LaneKey:
        """Kept: each ending names it."""
        return LaneKey(self.tenant, self.queue, self.type, self.priority, self.suspect)


class Claimed(msgspec.Struct, frozen=True):
    """An attempt this worker owns, with what its handler needs. The columns of claim.sql, in its order.

    `waited`: seconds it had been ready; `previous`: the lease of the attempt before this one, if that was a retry's."""

    job: UUID
    lease: int
    lane: int
    run: int
    attempt: int
    crashes: int
    type: str
    queue: str
    payload: str
    timeout_seconds: float
    max_attempts: int
    backoff_base: float
    backoff_cap: float
    tags: str | None
    metadata: str | None
    trace: str | None
    created_at: datetime
    waited: float = 0.0
    previous: int | None = None

    def standing(self, suspect: int) -> Standing:
        backoff = Backoff(self.backoff_base, self.backoff_cap)
        return Standing(self.attempt, self.max_attempts, self.crashes, suspect, backoff)


class Held(NamedTuple):
    """An attempt in flight as its row tells it."""

    job: UUID
    lease: int
    lane: LaneKey
    standing: Standing

    @classmethod
    def read(cls, row: asyncpg.Record) -> Held:
        lane = LaneKey(row["tenant"], row["queue"], row["type"], row["priority"], row["suspect"])
        backoff = Backoff(row["backoff_base"], row["backoff_cap"])
        standing = Standing(row["attempt"], row["max_attempts"], row["crashes"], lane.suspect, backoff)
        return cls(row["job"], row["lease"], lane, standing)

    def ended(self, change: Change) -> Ending:
        return Ending(self.job, self.lease, self.lane, change)


class Ending(NamedTuple):
    """An attempt that ends, the lane key its job has, and what becomes of it. `ran`: seconds since its start, where that
    is known; `is_written`: its handler has settled it itself."""

    job: UUID
    lease: int
    lane: LaneKey
    change: Change
    ran: float | None = None
    is_written: bool = False


class ProgressSaid(NamedTuple):
    """What an attempt last told of how far it has come."""

    job: UUID
    lease: int
    percent: float | None
    message: str | None


class LineSaid(NamedTuple):
    """What an attempt wrote onto its job. `line`: from 1 within the attempt; `ago`: seconds since it did."""

    job: UUID
    lease: int
    line: int
    ago: float
    level: str
    text: str


async def claim(
    connection: Connection,
    worker: int,
    lanes: Sequence[int],
    hints: Sequence[int],
    limit: int,
    lease_seconds: float,
) -> list[Claimed]:
    """Up to `limit` attempts of these lanes, each from its scan hint. Raises WorkerExpired when the worker's row is
    gone: it must take a new id."""
    return await _claim(connection, worker, lanes, hints, [], limit, lease_seconds)


async def claim_announced(
    connection: Connection, worker: int, announced: Sequence[Announcement], lease_seconds: float
) -> list[Claimed]:
    """Of these jobs those that are still where they were said to be. Raises WorkerExpired."""
    places = sorted({(one.lane, one.seq) for one in announced})
    lanes, behind, last = (
        [lane for lane, _ in places],
        [seq - 1 for _, seq in places],
        [seq for _, seq in places],
    )
    return await _claim(connection, worker, lanes, behind, last, len(places), lease_seconds)


async def _claim(
    connection: Connection,
    worker: int,
    lanes: Sequence[int],
    hints: Sequence[int],
    last: Sequence[int],
    limit: int,
    lease_seconds: float,
) -> list[Claimed]:
    try:
        rows = await connection.fetch(statement("claim"), lanes, hints, limit, worker, lease_seconds, last)
    except asyncpg.NotNullViolationError as refusal:
        if refusal.column_name == "worker":
            raise WorkerExpired(f"worker {worker} has no live row any more") from refusal
        raise
    return [Claimed(*row) for row in rows]


async def settle(connection: Connection, endings: Sequence[Ending]) -> set[UUID]:
    """End attempts for good, all or none. Jobs missing from the answer had lost their lease."""
    ordered = sorted(endings, key=_by_job)
    changes = [ending.change for ending in ordered]
    rows = await repeated_when_transient(
        lambda: connection.fetch(
            statement("settle"),
            [ending.job for ending in ordered],
            [ending.lease for ending in ordered],
            [change.status.value for change in changes],
            [
                change.reason.value if change.status is Status.FAILED and change.reason else None
                for change in changes
            ],
            [change.result for change in changes],
            [_text(change.error) for change in changes],
        )
    )
    return set(values(rows, "job"))


async def settle_within(connection: Connection, job: UUID, lease: int, change: Change) -> bool:
    """End one attempt for good in a transaction of the caller's. False: its lease was lost, and nothing was written."""
    rows = await connection.fetch(
        statement("settle"), [job], [lease], [change.status.value], [None], [change.result], [None]
    )
    return bool(rows)


class Moved(NamedTuple):
    """The jobs that went back, and those of them that ended instead, since somebody had asked to cancel them."""

    jobs: set[UUID]
    cancelled: set[UUID]


async def hand_back(connection: Connection, lanes: Lanes, endings: Sequence[Ending]) -> Moved:
    """Move attempts back in line (retry, release), in a transaction that locks first and writes second.
    Jobs missing from the answer had lost their lease."""
    ordered = sorted(endings, key=_by_job)

    async def lock_then_move() -> Moved:
        async with connection.transaction():
            leases = ([ending.job for ending in ordered], [ending.lease for ending in ordered])
            held = set(values(await connection.fetch(statement("lock_held"), *leases), "job"))
            return await move_back(connection, lanes, [ending for ending in ordered if ending.job in held])

    return await repeated_when_transient(lock_then_move)


async def move_back(connection: Connection, lanes: Lanes, endings: Sequence[Ending]) -> Moved:
    """The second half of a hand-back: the rows are locked by this transaction, in order of job."""
    if not endings:
        return Moved(set(), set())
    keys = [ending.lane.at_level(ending.change.suspect) for ending in endings]
    # Each key once: asked again, a lane that this transaction has just made would look like anybody's.
    found = {key: await lanes.id_of(connection, key) for key in dict.fromkeys(keys)}
    changes = [ending.change for ending in endings]
    moved = await connection.fetchrow(
        statement("back"),
        [ending.job for ending in endings],
        [ending.lease for ending in endings],
        [change.cause.value for change in changes],
        [change.reason.value if change.reason else None for change in changes],
        [found[key][0] for key in keys],
        [change.attempt for change in changes],
        [change.crashes for change in changes],
        [change.run_in or 0.0 for change in changes],
        [_text(change.error) for change in changes],
        list({ending.lane.type for ending in endings}),
        any(made for _, made in found.values()),
        ATTEMPTS_KEPT,
    )
    assert moved is not None
    return Moved(set(moved["moved"] or ()), set(moved["cancelled"] or ()))


async def cancel_requests(
    connection: Connection, running: Sequence[tuple[UUID, int]]
) -> list[tuple[UUID, int]]:
    """Which of these (job, run) somebody wants to end."""
    rows = await connection.fetch(
        statement("cancel_requests"), [job for job, _ in running], [run for _, run in running]
    )
    return [(row["job"], row["run"]) for row in rows]


async def put_progress(connection: Connection, said: Sequence[ProgressSaid]) -> set[int]:
    """What attempts told of their progress; the leases that are still held."""
    ordered = sorted(said, key=_by_job)
    rows = await repeated_when_transient(
        lambda: connection.fetch(
            statement("progress_put"),
            [each.job for each in ordered],
            [each.lease for each in ordered],
            [each.percent for each in ordered],
            [each.message for each in ordered],
        )
    )
    return set(values(rows, "lease"))


async def put_lines(connection: Connection, lines: Sequence[LineSaid]) -> set[int]:
    """What attempts wrote onto their jobs; the leases that are still held. Those written before stay as they are."""
    ordered = sorted(lines, key=_by_job)
    rows = await repeated_when_transient(
        lambda: connection.fetch(
            statement("job_log_put"),
            [each.job for each in ordered],
            [each.lease for each in ordered],
            [each.line for each in ordered],
            [each.ago for each in ordered],
            [each.level for each in ordered],
            [each.text for each in ordered],
        )
    )
    return set(values(rows, "lease"))


async def start_worker(
    connection: Connection, name: str, types: Iterable[str], concurrency: int, lease_seconds: float
) -> int:
    """A new worker id; its leases live as long as it beats."""
    return await connection.fetchval(statement("worker_start"), name, list(types), concurrency, lease_seconds)


async def beat(connection: Connection, worker: int, lease_seconds: float) -> bool:
    """Renew the leases of this worker. False: they are all lost."""
    return await connection.fetchval(statement("worker_beat"), worker, lease_seconds) is not None


async def set_idle(connection: Connection, worker: int, idle: bool) -> None:
    await connection.execute(statement("worker_idle"), worker, idle)


async def stop_worker(connection: Connection, worker: int) -> None:
    await connection.execute(statement("worker_stop"), worker)


async def held_by(connection: Connection, worker: int) -> list[Held]:
    """The attempts that the database believes this worker runs."""
    return [Held.read(row) for row in await connection.fetch(statement("worker_holds"), worker)]


async def lanes_of(connection: Connection, types: Iterable[str]) -> list[Lane]:
    return [Lane(*row) for row in await connection.fetch(statement("lanes"), list(types))]


def _by_job(one: Ending | ProgressSaid | LineSaid) -> bytes:
    return one.job.bytes


def _text(error: Any) -> str | None:
    return None if error is None else json.dumps(error)
