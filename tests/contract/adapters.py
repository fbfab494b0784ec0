"""Each bus that there is, on a real server of its own: what the one suite of the port asks of every one of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import asyncpg
import nats as client

from chaos.proxy import Proxy
from contract.nats_server import NatsServer
from jobyard.bus.nats import NatsBus
from jobyard.bus.nats_wire import MESSAGE_HEADER, subject
from jobyard.bus.postgres import PostgresBus
from jobyard.clock import SystemClock
from jobyard.ports import Capabilities, EventBus


@dataclass
class Broker:
    """`another`: a bus of another process. `cut`: every connection is lost. `away`: nobody reaches it meanwhile. `litter`:
    somebody else puts what is no message of ours into a topic, and answers False where nobody can."""

    another: Callable[[], EventBus]
    cut: Callable[[], AbstractAsyncContextManager[None]]
    away: Callable[[], AbstractAsyncContextManager[None]]
    litter: Callable[[str], Awaitable[bool]]


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

    async def litter(_: str) -> bool:
        return False  # the columns of the table refuse it

    yield Broker(another, cut, away, litter)
    for bus in opened:
        await bus.close()
    await admin.close()


@asynccontextmanager
async def nats(server: NatsServer) -> AsyncIterator[Broker]:
    """Its streams are deleted in the end. `away` kills the server as a crash would, and starts it again on its store."""
    proxy = Proxy(server.port)
    url = f"nats://127.0.0.1:{await proxy.open()}"
    opened: list[EventBus] = []

    def another() -> EventBus:
        opened.append(NatsBus(url, SystemClock()))
        return opened[-1]

    @asynccontextmanager
    async def cut() -> AsyncIterator[None]:
        proxy.cut()
        yield

    @asynccontextmanager
    async def away() -> AsyncIterator[None]:
        server.kill()
        try:
            yield
        finally:
            server.start()

    async def litter(topic: str) -> bool:
        async with await client.connect(server.url) as other:
            for headers in (
                None,
                {MESSAGE_HEADER: "no JSON"},
                {MESSAGE_HEADER: '{"id": 7}'},
                {"Status": "408"},
            ):
                await other.jetstream().publish(subject(topic), b"\xff", headers=headers)
        return True

    yield Broker(another, cut, away, litter)
    for bus in opened:
        await bus.close()
    proxy.close()
    async with await client.connect(server.url) as admin:
        for stream in await admin.jsm().streams_info():
            await admin.jsm().delete_stream(stream.config.name or "")


CAPABILITIES: dict[str, Capabilities] = {"postgres": PostgresBus.capabilities, "nats": NatsBus.capabilities}
"""Of every adapter; its fixture has the same name."""


def those_that(able: str) -> list[str]:
    return [name for name, capabilities in CAPABILITIES.items() if getattr(capabilities, able)]
