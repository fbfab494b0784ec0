"""A small HTTP server that tells whether a worker or a maintainer is alive and ready, and shows its metrics."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from jobyard.key import Key

REQUEST_SECONDS = 5.0
REQUEST_BYTES = 8192
JSON = b"application/json"
METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Pages:
    """What the answers are made of. `parts`: whether each part of the process works now."""

    is_ready: Callable[[], bool]
    parts: Callable[[], Mapping[str, bool]]
    metrics: Callable[[], bytes]


@asynccontextmanager
async def health_server(host: str, port: int | None, pages: Pages, key: Key | None) -> AsyncGenerator[None]:
    """Serve GET /healthz (200 while the process answers), /readyz (200 or 503, with the parts) and /metrics while the context is open.
    With a key, /metrics asks for it; the others are open to probes. Without a port there is no server. Raises OSError
    when the port cannot be had."""
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
                writer.write(_response(request, pages, key))
                await writer.drain()

    server = await asyncio.start_server(answer, host, port, limit=REQUEST_BYTES)
    try:
        yield
    finally:
        # Without waiting for clients, who may have nothing to say.
        server.close()


def _response(request: bytes, pages: Pages, key: Key | None) -> bytes:
    match request.split(b" ", 2)[1:2]:
        case [b"/healthz"]:
            return _said(b"200 OK", b"alive")
        case [b"/readyz"]:
            status, body = readiness(pages)
            return _whole(b"200 OK" if status == 200 else b"503 Service Unavailable", body, JSON)
        case [b"/metrics"] if not _shows(request, key):
            return _said(b"401 Unauthorized", b"send the key as Authorization: Bearer <key>")
        case [b"/metrics"]:
            return _whole(b"200 OK", pages.metrics(), METRICS_TYPE)
        case _:
            return _said(b"404 Not Found", b"not found")


def _shows(request: bytes, key: Key | None) -> bool:
    """Whether the request brings the key, where there is one."""
    fields = (line.partition(b":") for line in request.split(b"\r\n")[1:])
    shown = [value.strip() for name, _, value in fields if name.strip().lower() == b"authorization"]
    return key is None or key.is_shown(shown)


def readiness(pages: Pages) -> tuple[int, bytes]:
    """Status and body, in the form of the API's own answer."""
    status, word = (200, "ready") if pages.is_ready() else (503, "not_ready")
    parts = {name: {"ok": works} for name, works in pages.parts().items()}
    return status, json.dumps({"status": word, "parts": parts}).encode()


def _said(status: bytes, word: bytes) -> bytes:
    return _whole(status, b'{"status":"%s"}' % word, JSON)


def _whole(status: bytes, body: bytes, content_type: bytes) -> bytes:
    challenge = b"WWW-Authenticate: Bearer\r\n" if status.startswith(b"401") else b""
    head = b"HTTP/1.1 %s\r\n%sContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    return head % (status, challenge, content_type, len(body)) + body
