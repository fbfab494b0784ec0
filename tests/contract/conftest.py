from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from contract import adapters
from contract.adapters import Broker
from contract.nats_server import NatsServer
from contract.pubsub_server import PubsubServer
from jobyard.ports import EventBus


@pytest.fixture(params=adapters.CAPABILITIES)
def broker(request: pytest.FixtureRequest) -> Broker:
    found: Broker = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def bus(broker: Broker) -> EventBus:
    return broker.another()


@pytest.fixture
async def postgres(database: str, server: Callable[[str], str]) -> AsyncIterator[Broker]:
    async with adapters.postgres(database, server("postgres")) as broker:
        yield broker


@pytest.fixture
async def nats(nats_server: NatsServer) -> AsyncIterator[Broker]:
    async with adapters.nats(nats_server) as broker:
        yield broker


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def pubsub(pubsub_server: PubsubServer) -> AsyncIterator[Broker]:
    async with adapters.pubsub(pubsub_server) as broker:
        yield broker


@pytest.fixture(scope="session")
def pubsub_server() -> Iterator[PubsubServer]:
    server = PubsubServer()
    server.start()
    yield server
    server.kill()
