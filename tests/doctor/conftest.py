from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from jobyard.config import Settings
from jobyard.doctor.checks import findings
from jobyard.doctor.finding import Finding
from jobyard.doctor.patient import reached
from jobyard.store import database as db
from jobyard.store.sampling import take_sample
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
    if shutil.which("pgbouncer") is None:
        pytest.skip("pgbouncer is not installed")
    parts = urlsplit(database)
    host = parts.hostname or parse_qs(parts.query)["host"][0]
    port = parts.port or int(parse_qs(parts.query).get("port", ["5432"])[0])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        own_port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="jobyard-pgbouncer-"))
    folder.chmod(0o755)
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={host} port={port} user={parts.username}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {own_port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = transaction\nignore_startup_parameters = extra_float_digits\n"
        f"[users]\n"
    )
    program = ["pgbouncer", "-q", str(folder / "pgbouncer.ini")]
    if os.geteuid() == 0:  # it refuses to run as root
        program = ["setpriv", "--reuid=nobody", "--clear-groups", *program]
    process = subprocess.Popen(program, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", own_port), timeout=1).close()
            break
        except OSError:
            assert process.poll() is None, f"{program} ended"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    yield f"postgresql://{parts.username}@127.0.0.1:{own_port}{parts.path}"
    process.terminate()
    process.wait(10)
    shutil.rmtree(folder)


@pytest.fixture
async def sampled(database: str) -> None:
    """A maintainer has just been there."""
    connection = await db.connect(database, hot=True, name="maintainer")
    await take_sample(connection, 0)
    await connection.close()
