"""Each bus that there is, on a real server of its own: what the one suite of the port asks of every one of them."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
import nats as client
import pytest

from chaos.proxy import Proxy
from contract.nats_server import NatsServer
from contract.pubsub_server import PubsubServer
from jobyard.bus.nats import NatsBus
from jobyard.bus.nats_wire import MESSAGE_HEADER, subject
from jobyard.bus.postgres import PostgresBus
from jobyard.bus.pubsub import PubsubBus
from jobyard.bus.pubsub_connection import opened
from jobyard.bus.pubsub_wire import ENVELOPE, ID
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
    address: tuple[str, str, str]
    """For a consumer in a process of its own: which bus, its address or project, and the namespace."""
    environment: dict[str, str] = field(default_factory=dict[str, str])


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

    yield Broker(another, cut, away, litter, ("postgres", url, ""))
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

    yield Broker(another, cut, away, litter, ("nats", url, ""))
    for bus in opened:
        await bus.close()
    proxy.close()
    async with await client.connect(server.url) as admin:
        for stream in await admin.jsm().streams_info():
            await admin.jsm().delete_stream(stream.config.name or "")


@asynccontextmanager
async def pubsub(server: PubsubServer) -> AsyncIterator[Broker]:
    """In a namespace of its own, which is emptied in the end. The emulator would forget everything in a restart, so `away`
    is that nobody reaches it; it is killed in `test_pubsub.py`. Google itself can be neither cut off nor sent away."""
    namespace = f"test-{uuid.uuid4().hex[:12]}"
    proxy = Proxy(server.port, server.host)
    address = "" if server.is_google else f"127.0.0.1:{await proxy.open()}"
    opened_here: list[EventBus] = []

    def another() -> EventBus:
        os.environ["PUBSUB_EMULATOR_HOST"] = address
        opened_here.append(PubsubBus(server.project, SystemClock(), namespace))
        del os.environ["PUBSUB_EMULATOR_HOST"]
        return opened_here[-1]

    @asynccontextmanager
    async def cut() -> AsyncIterator[None]:
        if server.is_google:
            pytest.skip("Google Pub/Sub cannot be cut off")
        proxy.cut()
        yield

    @asynccontextmanager
    async def away() -> AsyncIterator[None]:
        if server.is_google:
            pytest.skip("Google Pub/Sub cannot be sent away")
        proxy.refuse()
        try:
            yield
        finally:
            proxy.accept()

    admin = await opened("" if server.is_google else f"{server.host}:{server.port}")

    async def litter(topic: str) -> bool:
        names = PubsubBus(server.project, SystemClock(), namespace).names
        messages = [
            {"data": b"\xff", "attributes": attributes}
            for attributes in (
                {},
                {"some": "thing"},
                {ENVELOPE: "x"},
                {ENVELOPE: "1", ID: "7"},
                {ENVELOPE: "-1"},
            )
        ]
        await admin.publisher.publish(topic=names.topic(topic), messages=messages)
        return True

    yield Broker(
        another,
        cut,
        away,
        litter,
        ("pubsub", server.project, namespace),
        {} if server.is_google else {"PUBSUB_EMULATOR_HOST": address},
    )
    for bus in opened_here:
        await bus.close()
    proxy.close()
    project = f"projects/{server.project}"
    async for subscription in await admin.subscriber.list_subscriptions(project=project):
        if f"/{namespace}-" in subscription.name:
            await admin.subscriber.delete_subscription(subscription=subscription.name)
    async for topic in await admin.publisher.list_topics(project=project):
        if f"/{namespace}-" in topic.name:
            await admin.publisher.delete_topic(topic=topic.name)
    await admin.channel.close()


CAPABILITIES: dict[str, Capabilities] = {
    "postgres": PostgresBus.capabilities,
    "nats": NatsBus.capabilities,
    "pubsub": PubsubBus.capabilities,
}
"""Of every adapter; its fixture has the same name."""


def those_that(able: str) -> list[str]:
    return [name for name, capabilities in CAPABILITIES.items() if getattr(capabilities, able)]
