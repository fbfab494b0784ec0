"""Runs the application under uvicorn, and stops it in an order that answers everybody."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import Any

import uvicorn

from jobyard import telemetry
from jobyard.config import Settings
from jobyard.process import StartError
from jobyard.telemetry import LogEvent

BACKLOG = 2048


class _Uvicorn(uvicorn.Server):
    """Without signal handlers of its own: the process has them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class Server:
    def __init__(self, app: Any, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def serve(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; then take no new connections, answer those that wait, flush what was accepted."""
        settings = self._settings
        config = uvicorn.Config(
            self._app,
            host=settings.host,
            port=settings.port,
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_level="error",
            log_config=None,
            backlog=BACKLOG,
            server_header=False,
            headers=[("server", "jobyard")],
            timeout_graceful_shutdown=max(1, int(settings.grace_seconds)),
        )
        server = _Uvicorn(config)
        serving = asyncio.create_task(server.serve(sockets=[self._listen()]))
        stopping = asyncio.create_task(stop.wait())
        telemetry.info(LogEvent.API_STARTED, host=settings.host, port=settings.port)
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        server.should_exit = True
        await self._app.drain()
        await serving
        telemetry.info(LogEvent.API_STOPPED)

    def _listen(self) -> socket.socket:
        host, port = self._settings.host, self._settings.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            return socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as cannot:
            raise StartError(
                f"cannot listen on {host}:{port} ({cannot.strerror}); another program holds it, or the address is not "
                "this machine's: set PORT or HOST"
            ) from cannot
