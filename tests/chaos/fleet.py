"""The processes under fire: a PostgreSQL of their own, and API, workers and maintainer, each with its own way to the
database. Whatever ends is started again, as any supervisor does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from chaos.brokers import Brokers
from chaos.jobs import LOG_URL
from chaos.proxy import Proxy
from jobyard.loop import backoff
from jobyard.process import SUPERVISED
from jobyard.store.database import connect
from jobyard.store.embedded import EmbeddedPostgres
from jobyard.store.migrate import migrate
from processes.program import COMMAND, environment, free_port

TESTS = Path(__file__).parents[1]
STEADY_SECONDS = 3.0
END_SECONDS = 20.0

TABLES = """
CREATE SCHEMA chaos;
CREATE TABLE chaos.start (once uuid NOT NULL, job uuid NOT NULL, run int NOT NULL, attempt int NOT NULL,
    lease bigint NOT NULL, pid int NOT NULL, parent int NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE chaos.payment (job uuid NOT NULL, run int NOT NULL);
CREATE TABLE chaos.accepted (job uuid NOT NULL);
CREATE TABLE chaos.seen (job uuid NOT NULL, status text NOT NULL);
CREATE TABLE chaos.fault (kind text NOT NULL, pid int, began timestamptz NOT NULL, ended timestamptz NOT NULL);
"""


@dataclass(eq=False)
class Supervised:
    """One process that is always there again."""

    role: str
    command: list[str]
    environment: Mapping[str, str]
    proxy: Proxy
    output: Path
    process: asyncio.subprocess.Process | None = None
    busy: bool = False
    """A fault is under way: no second one on top, which would only hide the first."""
    ends: Counter[int] = field(default_factory=Counter)

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        running = self.process is not None and self.process.returncode is None
        return self.process.pid if running and self.process else None

    def tell(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.process is not None:
                self.process.send_signal(number)

    async def keep_running(self) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            await self._run_once()
            failures = 0 if time.monotonic() - began > STEADY_SECONDS else failures + 1
            await asyncio.sleep(backoff(failures or 1))

    async def _run_once(self) -> None:
        with self.output.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                env=self.environment,
                cwd=TESTS,
                stdin=asyncio.subprocess.PIPE,  # closes with us, and they end with it
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.ends[await self.process.wait()] += 1

    async def end(self) -> None:
        if self.process is None or self.process.returncode is not None:
            return
        self.tell(signal.SIGTERM)
        try:
            async with asyncio.timeout(END_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self.tell(signal.SIGKILL)
            await self.process.wait()


class Fleet:
    def __init__(
        self,
        folder: Path,
        lease_seconds: float,
        concurrency: int,
        brokers: Brokers,
        *,
        durable: bool,
    ) -> None:
        # What a killed server has written to files outlives it in the kernel's memory: only a power cut needs fsync.
        self.postgres = EmbeddedPostgres(folder, settings={} if durable else {"fsync": "off"})
        self.folder = folder
        self.lease_seconds = lease_seconds
        self._concurrency = concurrency
        self.brokers = brokers
        self.members: list[Supervised] = []
        self.api_urls: list[str] = []
        self.restarting = asyncio.Lock()

    @property
    def url(self) -> str:
        """The way to the database that passes no proxy."""
        return self.postgres.url("jobyard")

    async def connect(self) -> asyncpg.Connection[asyncpg.Record]:
        return await connect(self.url, hot=False, name="harness")

    async def restart_postgres(self) -> None:
        """An immediate restart, which is a crash to everybody else."""
        async with self.restarting:
            pid = self.postgres.pid
            assert pid is not None
            os.kill(pid, signal.SIGQUIT)
            await asyncio.to_thread(self.postgres.start)

    async def add(self, role: str, *arguments: str, **settings: str) -> None:
        proxy = Proxy(self.postgres.socket_folder / ".s.PGSQL.5432")
        port = await proxy.open()
        given = {
            "DATABASE_URL": f"postgresql://jobyard@127.0.0.1:{port}/jobyard?sslmode=disable",
            "JOBYARD_HOME": str(self.folder),
            "JOBYARD_LEASE_SECONDS": str(self.lease_seconds),
            "JOBYARD_GRACE_SECONDS": "1",
            "JOBYARD_CONCURRENCY": str(self._concurrency),
            "JOBYARD_LOG": "json",
            LOG_URL: self.url,
            SUPERVISED: "1",
            **self.brokers.settings,
        }
        name = f"{role}-{len(self.members)}"
        self.members.append(
            Supervised(
                role,
                [*COMMAND, role, *arguments],
                environment(**given | settings),
                proxy,
                self.folder / f"{name}.output",
            )
        )

    async def add_api(self) -> None:
        port = free_port()
        await self.add("api", PORT=str(port))
        self.api_urls.append(f"http://127.0.0.1:{port}")

    async def prepare(self) -> None:
        await asyncio.to_thread(self.postgres.start)
        connection = await self.connect()
        await migrate(connection)
        await connection.execute(TABLES)
        await connection.close()


@asynccontextmanager
async def fleet(
    folder: Path,
    *,
    apis: int = 2,
    workers: int = 3,
    lease_seconds: float,
    concurrency: int,
    durable: bool,
    brokers: Brokers | None = None,
) -> AsyncGenerator[Fleet]:
    brokers = brokers or Brokers()
    made = Fleet(folder, lease_seconds, concurrency, brokers, durable=durable)
    keepers: list[asyncio.Task[None]] = []
    try:
        await made.prepare()
        for _ in range(apis):
            await made.add_api()
        for _ in range(workers):
            await made.add("worker", "--app", "chaos.jobs", JOBYARD_BUS=brokers.heard_over)
        await made.add("maintain", JOBYARD_BUS=brokers.announced_over)
        keepers += [asyncio.create_task(member.keep_running()) for member in made.members]
        yield made
    finally:
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, *(member.end() for member in made.members), return_exceptions=True)
        for member in made.members:
            member.proxy.close()
        await asyncio.to_thread(made.postgres.stop)
