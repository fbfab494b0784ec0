from __future__ import annotations

from collections.abc import Iterator

import pytest
from contract_server import Yard

from jobyard.client import Client


@pytest.fixture
def client(yard: Yard) -> Iterator[Client]:
    with Client(yard.url, retry_seconds=10) as client:
        yield client
