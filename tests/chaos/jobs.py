"""The handlers that run while processes die: `jobyard worker --app chaos.jobs`.

Each start is written down before anything else, on a connection that passes no proxy, and until it is committed: an
append-only log that tells what really ran, whatever Jobyard says.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import asyncpg
import msgspec

from jobyard import Context, Fail, handler

LOG_URL = "CHAOS_LOG_URL"
RETRY_SECONDS = 0.1
TYPES = ("coroutine", "thread", "child", "payment")
GATHER_SECONDS = 0.005
"""How long a start waits for others, so that the log costs a fraction of the jobs."""

APPEND = """
INSERT INTO chaos.start (once, job, run, attempt, lease, pid, parent)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::int[], $5::bigint[], $6::int[], $7::int[])
"""


class Start(NamedTuple):
    """`once` is its identity: a write whose answer was lost is repeated, and is still one start."""

    once: UUID
    job: UUID
    run: int
    attempt: int
    lease: int
    pid: int
    parent: int


class StartLog:
    """A thread that writes as many starts at a time as have gathered."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._loop = asyncio.new_event_loop()
        self._waiting: list[tuple[Start, asyncio.Future[None]]] = []
        self._more = asyncio.Event()
        threading.Thread(target=self._run, name="start log", daemon=True).start()

    def write(self, start: Start) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(self._written(start), self._loop)

    async def _written(self, start: Start) -> None:
        committed = self._loop.create_future()
        self._waiting.append((start, committed))
        self._more.set()
        await committed

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._write_for_ever())

    async def _write_for_ever(self) -> None:
        connection: asyncpg.Connection[asyncpg.Record] | None = None
        while True:
            await self._more.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._more.clear()
            batch, self._waiting = self._waiting, []
            connection = await self._append([start for start, _ in batch], connection)
            for _, committed in batch:
                if not committed.done():
                    committed.set_result(None)

    async def _append(
        self, starts: Iterable[Start], connection: asyncpg.Connection[asyncpg.Record] | None
    ) -> asyncpg.Connection[asyncpg.Record]:
        columns = [list(column) for column in zip(*starts, strict=True)]
        while True:
            try:
                if connection is None:
                    connection = await asyncpg.connect(self._url, server_settings={"application_name": "log"})
                await connection.execute(APPEND, *columns)
                return connection
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection = None
                await asyncio.sleep(RETRY_SECONDS)


class Work(msgspec.Struct):
    """`number` tells the jobs apart, also those whose answer never came. `fails`: that many first tries raise."""

    number: int
    fails: int = 0
    seconds: float = 0.0
    refused: bool = False


class NotYet(Exception):
    """This try was to fail."""


def outcome(work: Work, ctx: Context) -> Any:
    if work.refused:
        return Fail("never")
    if ctx.attempt <= work.fails:
        raise NotYet(f"try {ctx.attempt} of {work.fails} that fail")
    return None


def started(ctx: Context) -> Future[None]:
    # No handler needs its lease; the log does, since that alone tells two starts of one try apart.
    lease = ctx._claimed.lease
    return _log().write(Start(uuid4(), ctx.job_id, ctx.run, ctx.attempt, lease, os.getpid(), os.getppid()))


_logs: list[StartLog] = []
_making = threading.Lock()


def _log() -> StartLog:
    with _making:
        if not _logs:
            _logs.append(StartLog(os.environ[LOG_URL]))
    return _logs[0]


@handler("coroutine")
async def coroutine(work: Work, ctx: Context) -> Any:
    await asyncio.wrap_future(started(ctx))
    if work.seconds:
        await asyncio.sleep(work.seconds)
    return outcome(work, ctx)


@handler("thread")
def thread(work: Work, ctx: Context) -> Any:
    started(ctx).result()
    if work.seconds:
        time.sleep(work.seconds)
    return outcome(work, ctx)


@handler("child", process=True)
def child(work: Work, ctx: Context) -> Any:
    return thread(work, ctx)


@handler("payment")
async def payment(work: Work, ctx: Context) -> Any:
    """Its row is there exactly once, or the job is not completed."""
    await asyncio.wrap_future(started(ctx))
    outcome(work, ctx)
    async with ctx.transaction() as transaction:
        await transaction.connection.execute(
            "INSERT INTO chaos.payment (job, run) VALUES ($1, $2)", ctx.job_id, ctx.run
        )
        await asyncio.sleep(work.seconds)
