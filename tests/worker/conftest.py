from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from jobyard.store.database import Connection, Pool
from worker.yard import Yard


@pytest.fixture
async def yard(database: str, connection: Connection, pool: Pool) -> AsyncIterator[Yard]:
    yield Yard(database, connection, pool)
