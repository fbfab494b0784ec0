from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from databases import copied_database
from jobyard.store import database as db
from store.scene import Scene

TABLES = (
    "job", "lane", "ready", "active", "scheduled", "done", "attempt", "event", "worker", "idempotency", "sample",
    "redrive", "cancel_request", "progress", "job_log",
)  # fmt: skip


@pytest.fixture(scope="session")
def worn_database(server: Callable[[str], str], template: str) -> Iterator[str]:
    """One database for all tests of this process that wipe it first: emptying is ten times faster than copying."""
    with copied_database(server, template) as url:
        yield url


@pytest.fixture
async def scene(worn_database: str) -> AsyncIterator[Scene]:
    """An empty database of this test's own, with a pool and a connection as the worker has them."""
    connection = await db.connect(worn_database, hot=True, name="test")
    pool = await db.open_pool(worn_database, size=8, hot=True, name="test")
    tables = ", ".join(f"jobyard.{table}" for table in TABLES)
    await connection.execute(f"TRUNCATE {tables} RESTART IDENTITY")
    yield Scene(worn_database, pool, connection)
    await pool.close()
    await connection.close()


Wakes = Callable[[], Awaitable[list[tuple[str, str]]]]


@pytest.fixture
async def wakes(scene: Scene) -> AsyncIterator[Wakes]:
    """The wake-ups so far, each as (lanes, workers)."""
    heard = list[tuple[str, str]]()

    def hear(*notification: object) -> None:
        lanes, _, workers = str(notification[-1]).partition("|")
        heard.append((lanes, workers))

    async with scene.pool.acquire() as connection:
        await connection.add_listener("jobyard_ready", hear)

        async def so_far() -> list[tuple[str, str]]:
            # Notifications of earlier commits arrive before the answer of a later statement.
            await connection.execute("SELECT 1")
            return heard

        yield so_far
        await connection.remove_listener("jobyard_ready", hear)
