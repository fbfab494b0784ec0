"""A small HTTP server that tells whether a worker or a maintainer is alive and ready."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

REQUEST_SECONDS = 5.0
REQUEST_BYTES = 8192


@asynccontextmanager
async def health_server(host: str, port: int | None, is_ready: Callable[[], bool]) -> AsyncGenerator[None]:
    """Serve GET /healthz (200 while the process answers) and /readyz (200 or 503) while the context is open.
    Without a port there is no server. Raises OSError when the port cannot be had."""
    if port is None:
        yield
        return

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with (
            contextlib.closing(writer),
            contextlib.suppress(
                OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
            ),
        ):
            async with asyncio.timeout(REQUEST_SECONDS):
                request = await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(request.split(b" ", 2)[1:2], is_ready))
                await writer.drain()

    server = await asyncio.start_server(answer, host, port, limit=REQUEST_BYTES)
    try:
        yield
    finally:
        # Without waiting for clients, who may have nothing to say.
        server.close()


def _response(path: list[bytes], is_ready: Callable[[], bool]) -> bytes:
    match path:
        case [b"/healthz"]:
            status, word = b"200 OK", b"alive"
        case [b"/readyz"]:
            status, word = (b"200 OK", b"ready") if is_ready() else (b"503 Service Unavailable", b"not ready")
        case _:
            status, word = b"404 Not Found", b"not found"
    body = b'{"status":"%s"}' % word
    head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    return head % (status, len(body)) + body
