from __future__ import annotations

import pytest

from jobyard.store.database import Connection, Pool
from push.google_account import Key
from worker.yard import Yard


@pytest.fixture
async def yard(database: str, connection: Connection, pool: Pool) -> Yard:
    return Yard(database, connection, pool)


@pytest.fixture(scope="session")
def key() -> Key:
    return Key("first")


@pytest.fixture(scope="session")
def other_key() -> Key:
    return Key("second")
