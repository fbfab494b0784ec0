from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from contract.adapters import ADAPTERS, Broker
from jobyard.ports import EventBus


@pytest.fixture(params=ADAPTERS)
async def broker(
    request: pytest.FixtureRequest, database: str, server: Callable[[str], str]
) -> AsyncIterator[Broker]:
    async with ADAPTERS[request.param](database, server("postgres")) as broker:
        yield broker


@pytest.fixture
async def bus(broker: Broker) -> EventBus:
    return broker.another()
