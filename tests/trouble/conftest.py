from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobyard.store.database import Connection, Pool
from worker.yard import Yard


@pytest.fixture
async def yard(database: str, connection: Connection, pool: Pool) -> Yard:
    return Yard(database, connection, pool)


@pytest.fixture
def server_folder() -> Iterator[Path]:
    """For a server of one's own, which may run as another user."""
    with tempfile.TemporaryDirectory(prefix="jobyard-trouble-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
