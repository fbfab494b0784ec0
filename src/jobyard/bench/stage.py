"""Where a scenario plays: a server and a database of its own unless given one, and the processes it needs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx

from jobyard.config import Settings
from jobyard.store.database import connect
from jobyard.store.embedded import EmbeddedPostgres
from jobyard.store.migrate import migrate

READY_SECONDS = 20.0
STOP_SECONDS = 12.0


@dataclass(frozen=True, slots=True)
class Stage:
    url: str
    postgres_version: str

    async def connect(self) -> asyncpg.Connection[asyncpg.Record]:
        return await connect(self.url, hot=True, name="jobyard bench")

    async def wal_position(self) -> int:
        connection = await self.connect()
        try:
            return int(await connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))
        finally:
            await connection.close()


@asynccontextmanager
async def stage(settings: Settings) -> AsyncGenerator[Stage]:
    """A fresh, migrated database, dropped afterwards; on the server of DATABASE_URL, or on one of its own that has
    the durable defaults."""
    with contextlib.ExitStack() as undo:
        if settings.database_url is None:
            # Not below the home: a benchmark leaves no trace there. Reachable for the user PostgreSQL runs as.
            folder = Path(tempfile.mkdtemp(prefix="jobyard-bench-"))
            os.chmod(folder, 0o755)  # noqa: PTH101, S103 - reachable is the point, and pathlib's spelling counts as slow in a coroutine
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            postgres = EmbeddedPostgres(folder)
            await asyncio.to_thread(postgres.start)
            undo.callback(postgres.stop)
            server_url = postgres.url("postgres")
        else:
            server_url = settings.database_url
        async with _database_on(server_url) as made:
            yield made


@asynccontextmanager
async def _database_on(server_url: str) -> AsyncGenerator[Stage]:
    name = f"jobyard_bench_{uuid.uuid4().hex[:8]}"
    server = await asyncpg.connect(server_url)
    await server.execute(f"CREATE DATABASE {name}")
    try:
        url = urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))
        connection = await connect(url, hot=False, name="jobyard bench")
        await migrate(connection, url)
        await connection.execute("VACUUM ANALYZE")
        await connection.close()
        yield Stage(url, str(await server.fetchval("SHOW server_version")).split()[0])
    finally:
        await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await server.close()


@dataclass(slots=True)
class Role:
    """A process of ours on the stage. `cpu_seconds` is known after its end."""

    process: asyncio.subprocess.Process
    cpu_seconds: float = 0.0


@asynccontextmanager
async def role(stage: Stage, name: str, **environment: str) -> AsyncGenerator[Role]:
    """`jobyard api|worker|maintain` on the stage's database, stopped by SIGTERM at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "jobyard.cli",
        name,
        env=os.environ | {"DATABASE_URL": stage.url, "DATABASE_DIRECT_URL": ""} | environment,
        stderr=asyncio.subprocess.DEVNULL,
    )
    playing = Role(process)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        yield playing
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        playing.cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@asynccontextmanager
async def api(stage: Stage) -> AsyncGenerator[int]:
    """A ready API process; the value is its port."""
    port = free_port()
    async with role(stage, "api", HOST="127.0.0.1", PORT=str(port)):
        await _ready(port)
        yield port


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def _ready(port: int) -> None:
    async with asyncio.timeout(READY_SECONDS), httpx.AsyncClient(trust_env=False) as client:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(f"http://127.0.0.1:{port}/readyz")).is_success:
                    return
            await asyncio.sleep(0.02)
