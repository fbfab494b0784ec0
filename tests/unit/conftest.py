from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Also for the processes that tests start, the server is a module of its own.
sys.path.insert(0, str(Path(__file__).parent / "client"))
from contract_server import ContractServer, Yard


@pytest.fixture(scope="session")
def contract_server() -> Iterator[ContractServer]:
    server = ContractServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def yard(contract_server: ContractServer) -> Iterator[Yard]:
    """A server that speaks the HTTP contract, with nothing in it."""
    yard = contract_server.fresh()
    yield yard
    yard.hold_bulk.set()
