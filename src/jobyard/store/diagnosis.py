"""Facts about a database, as PostgreSQL itself tells them. What they mean is judged in `jobyard.doctor`."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from importlib.resources import files

import asyncpg

from jobyard.store.database import Connection, connect
from jobyard.store.statements import statement

NOTIFY_SECONDS = 2.0
"""How long a notification may take to arrive, idle."""

CHANNEL = "jobyard_doctor"


@dataclass(frozen=True, slots=True)
class Drift:
    """How the schema differs from that of this release: lines as in schema.txt."""

    missing: list[str]
    unexpected: list[str]


@dataclass(frozen=True, slots=True)
class ClockReading:
    """`ahead`: seconds that the database's clock is ahead of this machine's, give or take `uncertain`."""

    ahead: float
    uncertain: float


def expected_schema() -> list[str]:
    """What a database has after all migrations of this release, and nothing else."""
    return files("jobyard.store").joinpath("schema.txt").read_text(encoding="utf-8").splitlines()


async def actual_schema(connection: Connection) -> list[str]:
    return [row["line"] for row in await connection.fetch(statement("doctor_schema"))]


async def drift(connection: Connection) -> Drift:
    expected, actual = expected_schema(), await actual_schema(connection)
    return Drift(
        [line for line in expected if line not in set(actual)],
        [line for line in actual if line not in set(expected)],
    )


async def tables(connection: Connection) -> list[asyncpg.Record]:
    """The columns of doctor_tables.sql."""
    return await connection.fetch(statement("doctor_tables"))


async def horizon(connection: Connection, older_than_seconds: float) -> list[asyncpg.Record]:
    """Who holds back vacuum: the columns of doctor_horizon.sql, the oldest first."""
    return await connection.fetch(statement("doctor_horizon"), older_than_seconds)


async def server(connection: Connection) -> asyncpg.Record:
    """The columns of doctor_server.sql."""
    row = await connection.fetchrow(statement("doctor_server"))
    assert row is not None
    return row


async def clock(connection: Connection) -> ClockReading:
    """The best of three readings: the one with the shortest way."""
    readings: list[ClockReading] = []
    for _ in range(3):
        before = time.time()
        told: float = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
        after = time.time()
        readings.append(ClockReading(told - (before + after) / 2, (after - before) / 2))
    return min(readings, key=lambda reading: reading.uncertain)


async def shares_sessions(url: str) -> bool:
    """Whether two connections that are open at once meet in one session: then a transaction pooler is between."""
    first, second = [
        await asyncpg.connect(url, timeout=10, command_timeout=10, statement_cache_size=0) for _ in range(2)
    ]
    try:
        sessions = [await _session_of(connection) for connection in (first, second, first, second)]
        return sessions[0] == sessions[1] or sessions[:2] != sessions[2:]
    finally:
        await first.close()
        await second.close()


async def _session_of(connection: Connection) -> int:
    # In a transaction, because a pooler may take the session away between two messages of one statement.
    async with connection.transaction():
        return await connection.fetchval("SELECT pg_backend_pid()")


async def notification_arrives(listen_at: str, notify_from: Connection) -> bool:
    """Whether a listener at this address hears what another connection says."""
    heard = asyncio.Event()
    word = f"{time.time_ns()}"

    def hear(*notification: object) -> None:
        if notification[-1] == word:
            heard.set()

    listener: asyncpg.Connection[asyncpg.Record] = await connect(listen_at, hot=False, name="jobyard doctor")
    try:
        await listener.add_listener(CHANNEL, hear)
        await notify_from.execute("SELECT pg_notify($1, $2)", CHANNEL, word)
        async with asyncio.timeout(NOTIFY_SECONDS):
            await heard.wait()
        return True
    except TimeoutError:
        return False
    finally:
        listener.terminate()
