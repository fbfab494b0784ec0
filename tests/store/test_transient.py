"""What the server undid as a whole is done again; what may have been done is not."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from jobyard.store.database import Connection, Pool, repeated_when_transient


async def test_the_victim_of_a_real_deadlock_is_repeated_and_both_sides_get_their_way(pool: Pool) -> None:
    await pool.execute("CREATE TABLE counter (id int PRIMARY KEY, n int NOT NULL DEFAULT 0)")
    await pool.execute("INSERT INTO counter VALUES (1), (2)")
    both_hold_one = asyncio.Barrier(2)
    tries = 0

    async def add_to(first: int, second: int) -> None:
        fresh = True

        async def once() -> None:
            nonlocal fresh, tries
            tries += 1
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("UPDATE counter SET n = n + 1 WHERE id = $1", first)
                if fresh:
                    fresh = False
                    await both_hold_one.wait()
                await connection.execute("UPDATE counter SET n = n + 1 WHERE id = $1", second)

        await repeated_when_transient(once)

    await asyncio.gather(add_to(1, 2), add_to(2, 1))
    assert [row["n"] for row in await pool.fetch("SELECT n FROM counter ORDER BY id")] == [2, 2]
    assert tries > 2, "one of the two was undone and done again"


async def test_what_never_stops_failing_is_raised_after_a_bounded_number_of_tries() -> None:
    tries = 0

    async def fails() -> None:
        nonlocal tries
        tries += 1
        raise asyncpg.SerializationError("again")

    with pytest.raises(asyncpg.SerializationError):
        await repeated_when_transient(fails, tries=4)
    assert tries == 4


async def test_a_lost_connection_is_not_repeated(connection: Connection) -> None:
    tries = 0

    async def cut() -> None:
        nonlocal tries
        tries += 1
        await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await repeated_when_transient(cut)
    assert tries == 1
