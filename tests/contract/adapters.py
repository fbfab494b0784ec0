"""Each bus that there is, on a real server of its own: what the one suite of the port asks of every one of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import asyncpg

from jobyard.bus.postgres import PostgresBus
from jobyard.clock import SystemClock
from jobyard.ports import EventBus


@dataclass
class Broker:
    """`another`: a bus of another process. `cut`: every connection is lost. `away`: nobody reaches it meanwhile."""

    another: Callable[[], EventBus]
    cut: Callable[[], AbstractAsyncContextManager[None]]
    away: Callable[[], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def postgres(url: str, outside: str) -> AsyncIterator[Broker]:
    name = url.rpartition("/test_")[2].partition("?")[0]
    database = f"test_{name}"
    opened: list[EventBus] = []
    admin = await asyncpg.connect(outside)

    def another() -> EventBus:
        opened.append(PostgresBus(url, SystemClock()))
        return opened[-1]

    async def cut_all() -> None:
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = $1 AND application_name LIKE 'jobyard %'", database,
        )  # fmt: skip

    @asynccontextmanager
    async def cut() -> AsyncIterator[None]:
        await cut_all()
        yield

    @asynccontextmanager
    async def away() -> AsyncIterator[None]:
        await admin.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
        await cut_all()
        try:
            yield
        finally:
            await admin.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")

    yield Broker(another, cut, away)
    for bus in opened:
        await bus.close()
    await admin.close()


ADAPTERS = {"postgres": postgres}
