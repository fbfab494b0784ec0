"""An HTTP client that costs as little as it can, so that the server is what is measured: prepared requests over
connections that are kept open, and only as much of an answer read as its length asks for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast

from jobyard.config import Settings

HEAD_END = b"\r\n\r\n"
LONGEST_SECONDS = 600.0
"""A load that takes longer than this has hung."""


def post(path: str, body: bytes, settings: Settings) -> bytes:
    key = f"Authorization: Bearer {settings.key}\r\n" if settings.key else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{key}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class UnexpectedAnswer(Exception):
    """The server did not accept a request of the benchmark."""


class _Client(asyncio.Protocol):
    """Sends its requests one after the other; each is timed from its first byte sent to its last byte received."""

    def __init__(self, next_request: Callable[[], bytes | None], milliseconds: list[float]) -> None:
        self._next_request = next_request
        self._milliseconds = milliseconds
        self._buffer = b""
        self._sent = 0.0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(HEAD_END)
        if end < 0 or len(self._buffer) < end + len(HEAD_END) + _length(self._buffer[:end]):
            return
        self._milliseconds.append((time.perf_counter() - self._sent) * 1000)
        if self._buffer[9:10] != b"2":
            self._end(UnexpectedAnswer(self._buffer[:500].decode(errors="replace")))
            return
        self._buffer = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or UnexpectedAnswer("the server closed the connection"))

    def _send(self) -> None:
        request = self._next_request()
        if request is None:
            self._end(None)
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(request)

    def _end(self, trouble: Exception | None) -> None:
        if self.over.done():
            return
        if trouble is None:
            self.over.set_result(None)
        else:
            self.over.set_exception(trouble)


def _length(head: bytes) -> int:
    lower = head.lower()
    at = lower.find(b"content-length:")
    return int(lower[at + 15 :].split(b"\r", 1)[0])


async def send(port: int, connections: int, requests: int, make: Callable[[int], bytes]) -> list[float]:
    """Send `requests` requests over so many connections at once; how many milliseconds each took."""
    milliseconds: list[float] = []
    numbers = iter(range(requests))

    def next_request() -> bytes | None:
        number = next(numbers, None)
        return None if number is None else make(number)

    loop = asyncio.get_running_loop()
    clients: list[_Client] = []
    for _ in range(connections):
        _, client = await loop.create_connection(
            lambda: _Client(next_request, milliseconds), "127.0.0.1", port
        )
        clients.append(client)
    async with asyncio.timeout(LONGEST_SECONDS):
        await asyncio.gather(*(client.over for client in clients))
    return milliseconds
