"""When a connection is called slow, by a clock in the test's hand."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from jobyard.api.connection import Connection
from jobyard.config import Settings

LIMIT = Settings().head_timeout_seconds


class Wire(asyncio.Transport):
    """A transport that only remembers whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def write(self, data: Any) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


@pytest.fixture
async def connection() -> Connection:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("there is no request")

    config = uvicorn.Config(app, log_config=None, lifespan="off")
    config.load()
    opened = Connection(Settings(), config, ServerState(), {})
    opened.connection_made(Wire())
    return opened


async def test_silence_is_cut_at_its_bound_and_not_before(connection: Connection):
    now = asyncio.get_running_loop().time()
    connection.look(now + LIMIT - 0.1)
    assert not connection.transport.is_closing()
    connection.look(now + LIMIT + 0.1)
    assert connection.transport.is_closing()


async def test_time_in_which_we_did_not_read_on_is_not_the_clients(connection: Connection):
    now = asyncio.get_running_loop().time()
    connection.flow.pause_reading()
    connection.look(now + 10 * LIMIT)
    connection.flow.resume_reading()
    connection.look(now + 11 * LIMIT - 0.1)
    assert not connection.transport.is_closing()
    connection.look(now + 11 * LIMIT + 0.1)
    assert connection.transport.is_closing()
