from __future__ import annotations

import shutil
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
def home() -> Iterator[Path]:
    """A home that the user PostgreSQL runs as can reach, which pytest's own folders are not."""
    folder = Path(tempfile.mkdtemp(prefix="jobyard-dev-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
