from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from contract.nats_server import NatsServer
from jobyard.bus.nats import NatsBus
from jobyard.bus.postgres import PostgresBus
from jobyard.clock import SystemClock
from jobyard.ports import EventBus
from jobyard.store.database import Connection, Pool
from worker.yard import Yard

BROKERS = ["postgres", "nats"]


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
async def another(request: pytest.FixtureRequest, database: str) -> AsyncIterator[Callable[[], EventBus]]:
    """Makes buses of one broker, each as of a process of its own: in PostgreSQL, unless the test asks for another."""
    kind = getattr(request, "param", "postgres")
    url: str = request.getfixturevalue("nats_server").url if kind == "nats" else database
    opened: list[EventBus] = []

    def make() -> EventBus:
        opened.append({"postgres": PostgresBus, "nats": NatsBus}[kind](url, SystemClock()))
        return opened[-1]

    yield make
    for bus in opened:
        await bus.close()


@pytest.fixture
async def bus(another: Callable[[], EventBus]) -> EventBus:
    return another()
