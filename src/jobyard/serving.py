"""Serves an application of our own over HTTP beside the work of a process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Generator
from typing import Any

import uvicorn


class _Uvicorn(uvicorn.Server):
    """Without signal handlers of its own: the process has them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@contextlib.asynccontextmanager
async def served(application: Any, listening: socket.socket, **options: Any) -> AsyncGenerator[None]:
    """While the context is open. `options` are uvicorn's."""
    config = uvicorn.Config(
        application,
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=1,
        **options,
    )
    server = _Uvicorn(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving
