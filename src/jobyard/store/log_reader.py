"""Reads the event log without gaps, however transactions commit: by ticks, each a snapshot. What a tick sees and the one
before it did not, was committed between the two; it is read in order of seq, by several readers that share the jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg

from jobyard.store.database import Connection
from jobyard.store.statements import statement

SHARDS = 4
"""Of the jobs: as many readers may work at once, and all events of a job go through one."""

HOLD_SECONDS = 30.0
"""How long after a reader was killed its shards wait."""

TICK_SECONDS = 0.02
"""From one tick to the next, at least."""

TICKS_AT_ONCE = 50
PAGE_ROWS = 200
PAGE_FACTS = 2000
"""A page ends with the row of the log that reaches so many."""

AGAIN_SECONDS = 60.0
"""After a restore, what is younger than this before the last tick is read again: it may have been marked just before."""

TICKS_EXPIRED = 1000


class Place(NamedTuple):
    """All up to `tick` is read, and of what is up to `upto`, if that is named, what has a seq up to `seq`. Where the two are
    one tick, the log is gone through by seq, after a restore."""

    tick: int
    upto: int | None
    seq: int


@dataclass(frozen=True, slots=True)
class Turn:
    """Shards that one reader has, at one place, each with the number of its turn."""

    shards: dict[int, int]
    place: Place


class Fact(NamedTuple):
    """What the log says of one job. `detail`: a reason or a cause; `lease` is 0 for the creation."""

    seq: int
    at: datetime
    kind: str
    job: UUID
    attempt: int
    detail: str | None
    lease: int
    worker: int | None


@dataclass(frozen=True, slots=True)
class Page:
    """`facts` of the shards that were asked for, in order; then the reader is at `next`."""

    facts: list[Fact]
    next: Place


def shard_of(job: UUID) -> int:
    """The last bits of a UUID are random, whatever its version."""
    return job.int % SHARDS


async def begin(connection: Connection) -> None:
    """Where nobody has read the log before, it is read from now on; where it was restored into another cluster, from what
    may not have been read there."""
    row = await connection.fetchrow(statement("log_cluster"))
    assert row is not None
    if row["written"] is None:
        await connection.execute(statement("log_begin"), row["here"], SHARDS)
    elif row["written"] != row["here"]:
        await connection.execute(statement("log_restored"), row["here"], AGAIN_SECONDS)


async def make_tick(connection: Connection, least_seconds: float = TICK_SECONDS) -> bool:
    """Whether something was committed since the last tick; then there is a new one."""
    return await connection.fetchval(statement("tick_make"), least_seconds) is not None


async def take(connection: Connection, most: int = SHARDS) -> Turn | None:
    """Up to `most` shards that nobody has, for HOLD_SECONDS; None when nothing is left to read, or others read it."""
    rows = await connection.fetch(statement("relay_take"), HOLD_SECONDS, most)
    if not rows:
        return None
    return Turn(
        {row["shard"]: row["turn"] for row in rows}, Place(rows[0]["tick"], rows[0]["upto"], rows[0]["seq"])
    )


async def read(connection: Connection, turn: Turn, rows: int = PAGE_ROWS) -> Page:
    """The next page of these shards."""
    tick, upto, seq = turn.place
    newest = await connection.fetchval(statement("log_target"), tick, TICKS_AT_ONCE) if upto is None else upto
    if newest is None:
        return Page([], turn.place)
    if newest == tick:
        found = await connection.fetch(statement("log_walk"), tick, seq, rows)
    else:
        found = await connection.fetch(statement("log_between"), tick, newest, seq, rows)
    facts: list[Fact] = []
    for at, row in enumerate(found, 1):
        facts += [fact for fact in _facts(row) if shard_of(fact.job) in turn.shards]
        if len(facts) >= PAGE_FACTS and at < len(found):
            return Page(facts, Place(tick, newest, row["seq"]))
    if len(found) == rows:
        return Page(facts, Place(tick, newest, found[-1]["seq"]))
    return Page(facts, Place(newest, None, 0))


async def mark(connection: Connection, turn: Turn, place: Place) -> set[int]:
    """The shards of this turn have come to this place, and are free. Missing from the answer is whose turn was over."""
    rows = await connection.fetch(
        statement("relay_mark"), list(turn.shards), list(turn.shards.values()), *place
    )
    return {row["shard"] for row in rows}


async def known_of(
    connection: Connection, facts: Sequence[Fact], largest_result: int
) -> list[asyncpg.Record]:
    """The columns of log_facts.sql for each."""
    return await connection.fetch(
        statement("log_facts"), [fact.job for fact in facts], [fact.lease for fact in facts], largest_result
    )


async def lag(connection: Connection) -> float:
    """Seconds since the first thing that a tick has seen and not every shard has passed."""
    return await connection.fetchval(statement("relay_lag")) or 0.0


async def delete_ticks(connection: Connection) -> int:
    """Delete one batch of those that every shard has passed."""
    return await connection.fetchval(statement("tick_expire"), TICKS_EXPIRED)


def _facts(row: asyncpg.Record) -> list[Fact]:
    count = len(row["jobs"])
    none: list[None] = [None] * count
    leases = row["leases"] or [0] * count
    return [
        Fact(row["seq"], row["at"], row["kind"], job, attempt, detail, lease, row["worker"])
        for job, attempt, detail, lease in zip(
            row["jobs"], row["attempts"], row["details"] or none, leases, strict=True
        )
    ]
