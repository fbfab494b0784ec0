"""Every test that needs PostgreSQL gets a database of its own on one real server that the whole run shares.

The server is the embedded one, or the one at JOBYARD_TEST_DATABASE_URL (a superuser's address).
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from databases import copied_database
from jobyard.store import database as db
from jobyard.store.embedded import EmbeddedPostgres
from jobyard.store.migrate import migrate, migrations

# A run in the background of a script starts with Ctrl-C ignored, and so would everything that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

TEMPLATE = "jobyard_test_" + hashlib.sha256("".join(m.digest for m in migrations()).encode()).hexdigest()[:12]


@pytest.fixture(scope="session")
def run_folder(worker_id: str, testrun_uid: str) -> Iterator[Path]:
    """A folder that all processes of this run share, reachable for the user that PostgreSQL runs as."""
    folder = Path(tempfile.gettempdir()) / f"jobyard-tests-{testrun_uid[:12]}"
    folder.mkdir(mode=0o755, exist_ok=True)
    yield folder
    # Whoever can take the lock alone is the last to leave.
    with (folder / "users").open("a") as users:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server(run_folder: Path) -> Iterator[Callable[[str], str]]:
    """The address of a database by its name, on the server that the whole run shares."""
    with (run_folder / "users").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        given = os.environ.get("JOBYARD_TEST_DATABASE_URL")
        if given:
            yield lambda name: urlunsplit(urlsplit(given)._replace(path=f"/{name}"))
            return
        # Durability is the subject of the tests of the embedded server, not of these.
        fast = {
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "max_connections": "300",
            "wal_keep_size": "2GB",  # what tests measure in the log must still be there when they read it
        }
        postgres = EmbeddedPostgres(run_folder / "home", settings=fast)
        postgres.start()
        try:
            yield postgres.url
        finally:
            postgres.stop()


@pytest.fixture(scope="session")
def template(server: Callable[[str], str], run_folder: Path) -> str:
    """A migrated database to copy; made once a run."""

    async def make() -> None:
        connection = await asyncpg.connect(server("postgres"))
        try:
            if not await connection.fetchval("SELECT count(*) FROM pg_database WHERE datname = $1", TEMPLATE):
                await connection.execute(f"CREATE DATABASE {TEMPLATE}_making")
                fresh = await db.connect(server(f"{TEMPLATE}_making"), hot=False, name="template")
                await migrate(fresh)
                # What a database looks like to the planner right after an install: vacuumed and empty.
                await fresh.execute("VACUUM ANALYZE")
                await fresh.close()
                await connection.execute(f"ALTER DATABASE {TEMPLATE}_making RENAME TO {TEMPLATE}")
        finally:
            await connection.close()

    with (run_folder / "template.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        asyncio.run(make())
    return TEMPLATE


@pytest.fixture
def database(server: Callable[[str], str], template: str) -> Iterator[str]:
    """The address of a fresh, migrated database of this test's own."""
    with copied_database(server, template) as url:
        yield url


@pytest.fixture
async def connection(database: str) -> AsyncIterator[db.Connection]:
    """A connection with the settings of the pools that run the hot statements."""
    opened = await db.connect(database, hot=True, name="test")
    yield opened
    await opened.close()


@pytest.fixture
async def pool(database: str) -> AsyncIterator[db.Pool]:
    opened = await db.open_pool(database, size=8, hot=True, name="test")
    yield opened
    await opened.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests measured and tell in a `report` property, which a passed test could not else do."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, text in getattr(report, "user_properties", ()):
                if name == "report" and report.when == "call":
                    terminalreporter.write_line(str(text))
