from __future__ import annotations

import pytest

from jobyard.store.database import Connection, Pool
from worker.yard import Yard


@pytest.fixture
async def yard(database: str, connection: Connection, pool: Pool) -> Yard:
    return Yard(database, connection, pool)
