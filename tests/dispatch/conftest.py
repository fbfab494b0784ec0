from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from contract.nats_server import NatsServer
from contract.pubsub_server import PubsubServer
from jobyard.bus.opening import open_bus
from jobyard.clock import SystemClock
from jobyard.config import BusAddress
from jobyard.ports import EventBus
from jobyard.store.database import Connection, Pool
from worker.yard import Yard

BROKERS = ["postgres", "nats", "pubsub"]


@pytest.fixture
async def yard(database: str, connection: Connection, pool: Pool) -> Yard:
    return Yard(database, connection, pool)


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def pubsub_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PubsubServer]:
    server = PubsubServer()
    server.start()
    if not server.is_google:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"{server.host}:{server.port}")
    yield server
    server.kill()


@pytest.fixture
async def another(request: pytest.FixtureRequest, database: str) -> AsyncIterator[Callable[[], EventBus]]:
    """Makes buses of one broker, each as of a process of its own: in PostgreSQL, unless the test asks for another."""
    match getattr(request, "param", "postgres"):
        case "nats":
            address = BusAddress("nats", request.getfixturevalue("nats_server").url)
        case "pubsub":
            address = BusAddress("pubsub", request.getfixturevalue("pubsub_server").project)
        case _:
            address = BusAddress()
    opened: list[EventBus] = []

    def make() -> EventBus:
        opened.append(open_bus(address, database, SystemClock()))
        return opened[-1]

    yield make
    for bus in opened:
        await bus.close()


@pytest.fixture
async def bus(another: Callable[[], EventBus]) -> EventBus:
    return another()
