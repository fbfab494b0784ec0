from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from jobyard.config import Settings
from jobyard.doctor.checks import findings
from jobyard.doctor.finding import Finding
from jobyard.doctor.patient import reached
from jobyard.store import database as db
from jobyard.store.sampling import take_sample
from pooler import pooler_before
from store.conftest import scene, worn_database  # noqa: F401 - fixtures: a database with jobs in it

Examine = Callable[..., Awaitable[dict[str, list[Finding]]]]


@pytest.fixture
async def admin(database: str) -> AsyncIterator[db.Connection]:
    """A connection of the operator who has made, or mends, what the doctor sees."""
    connection = await db.connect(database, hot=False, name="operator")
    yield connection
    await connection.close()


@pytest.fixture
def examine(database: str) -> Examine:
    """What the doctor finds in this test's database, by check."""

    async def run(**variables: str) -> dict[str, list[Finding]]:
        found: dict[str, list[Finding]] = {}
        async with reached(Settings.read({"DATABASE_URL": database} | variables)) as patient:
            for finding in await findings(patient):
                found.setdefault(finding.check, []).append(finding)
        return found

    return run


@pytest.fixture
def pgbouncer(database: str) -> Iterator[str]:
    """The address of the same database behind a pooler in transaction mode."""
    with pooler_before(database) as address:
        yield address


@pytest.fixture
async def sampled(database: str) -> None:
    """A maintainer has just been there."""
    connection = await db.connect(database, hot=True, name="maintainer")
    await take_sample(connection, 0)
    await connection.close()
