from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from contract_server import ContractServer, Yard

from jobyard.client import Client


@pytest.fixture(scope="session")
def contract_server() -> Iterator[ContractServer]:
    server = ContractServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def yard(contract_server: ContractServer) -> Iterator[Yard]:
    yard = contract_server.fresh()
    yield yard
    yard.hold_bulk.set()


@pytest.fixture
def client(yard: Yard) -> Iterator[Client]:
    with Client(yard.url, retry_seconds=10) as client:
        yield client
