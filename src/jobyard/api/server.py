"""Runs the application under uvicorn, and stops it in an order that answers everybody."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import resource
import socket
from collections.abc import Generator
from typing import Any, cast

import uvicorn

from jobyard import telemetry
from jobyard.api.connection import Connection
from jobyard.config import Settings, is_loopback
from jobyard.process import StartError
from jobyard.telemetry import LogEvent

BACKLOG = 2048


TICKS_A_LOOK = 5
"""Of uvicorn's, ten a second: slow clients are cut at most half a second late."""


FILES_BESIDE_CONNECTIONS = 256


class _Uvicorn(uvicorn.Server):
    """Without signal handlers of its own: the process has them."""

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS_A_LOOK == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                cast("Connection", connection).look(now)
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class Server:
    """Listens from the moment it is made. Raises StartError."""

    def __init__(self, app: Any, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._socket = self._listen()
        _allow_files(settings.max_connections + FILES_BESIDE_CONNECTIONS)

    @property
    def port(self) -> int:
        return self._socket.getsockname()[1]

    async def serve(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; then take no new connections, answer those that wait, flush what was accepted. Ends
        with the grace: what the database holds up longer is answered as not known to be accepted."""
        settings = self._settings
        config = uvicorn.Config(
            self._app,
            host=settings.host,
            port=settings.port,
            http=cast("Any", functools.partial(Connection, settings)),
            ws="none",
            lifespan="off",
            proxy_headers=False,
            access_log=False,
            log_config=None,
            log_level="error",
            timeout_keep_alive=cast("int", settings.idle_timeout_seconds),
            backlog=BACKLOG,
            server_header=False,
            headers=[("server", "jobyard")],
            timeout_graceful_shutdown=max(1, int(settings.grace_seconds)),
        )
        server = _Uvicorn(config)
        serving = asyncio.create_task(server.serve(sockets=[self._socket]))
        stopping = asyncio.create_task(stop.wait())
        telemetry.info(LogEvent.API_STARTED, host=settings.host, port=self.port)
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        server.should_exit = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(settings.grace_seconds):
                await self._app.drain()
        await serving
        telemetry.info(LogEvent.API_STOPPED)

    def _listen(self) -> socket.socket:
        host, port = self._settings.host, self._settings.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as cannot:
            raise StartError(
                f"cannot listen on {host}:{port} ({cannot.strerror}); another program holds it, or the address is not "
                "this machine's: set PORT or HOST"
            ) from cannot
        address = listening.getsockname()[0]
        if self._settings.key is None and not is_loopback(address):
            listening.close()
            raise StartError(
                f"HOST: {host!r} is {address} here, which other machines reach; set JOBYARD_KEY to a secret first, "
                "or HOST to 127.0.0.1"
            )
        # Connections inherit it. uvloop sets it anyway; asyncio does not where the protocol is left to the kernel, and then
        # every answer waits 40 ms for the client's delayed acknowledgement of its head.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening


def _allow_files(count: int) -> None:
    """As many open files as that, or as the machine allows: shells and containers often start with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        most = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
