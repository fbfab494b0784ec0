"""A real HTTP server on this machine that keeps what it received, and answers with whatever bytes a test wants."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Received:
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    raw: bytes
    at: float

    def header(self, name: str) -> str | None:
        [*values] = [value for held, value in self.headers if held.lower() == name.lower()]
        assert len(values) <= 1, f"{name} came twice"
        return values[0] if values else None


Reply = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


def answer(status: int = 200, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def always(raw: bytes) -> Reply:
    async def reply(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)

    return reply


async def silence(received: Received, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@dataclass
class WebServer:
    """A deaf one accepts connections and reads nothing."""

    reply: Reply
    port: int = 0
    host: str = "127.0.0.1"
    deaf: bool = False
    connections: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)  # a client has left
    requests: list[Received] = field(default_factory=list[Received])

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            if self.deaf:
                writer.transport.pause_reading()
                await asyncio.Event().wait()
            await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            self.closed.set()
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received = await _received(reader)
        self.requests.append(received)
        leaving = asyncio.create_task(self._note_leaving(reader))
        try:
            await self.reply(received, writer)
            await writer.drain()
        finally:
            leaving.cancel()

    async def _note_leaving(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            await reader.read()
        self.closed.set()


async def _received(reader: asyncio.StreamReader) -> Received:
    head = await reader.readuntil(b"\r\n\r\n")
    line, *lines = head.decode("latin-1").split("\r\n")[:-2]
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
    body = await reader.readexactly(length)
    method, target, _ = line.split(" ")
    return Received(method, target, headers, body, head + body, asyncio.get_running_loop().time())


@asynccontextmanager
async def web_server(
    reply: Reply,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    *,
    deaf: bool = False,
) -> AsyncGenerator[WebServer]:
    server = WebServer(reply, host=host, deaf=deaf)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(server.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listening = await asyncio.start_server(accept, host, port, ssl=tls, backlog=1024)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listening.wait_closed()


@contextmanager
def web_server_in_a_thread(reply: Reply) -> Generator[WebServer]:
    """The same beside the test's own loop, which it neither slows nor waits for."""
    started: list[WebServer] = []
    ready, done = threading.Event(), threading.Event()

    async def serve() -> None:
        async with web_server(reply) as server:
            started.append(server)
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield started[0]
    finally:
        done.set()
        thread.join()


@dataclass
class Canary:
    """Listens on every address of this machine, at one port, and counts who comes."""

    port: int
    sockets: list[socket.socket]

    def visitors(self) -> int:
        count = 0
        for listening in self.sockets:
            with suppress(BlockingIOError):
                while True:
                    listening.accept()[0].close()
                    count += 1
        return count


@contextmanager
def canary() -> Generator[Canary]:
    four = socket.create_server(("0.0.0.0", 0))
    sockets = [four]
    with suppress(OSError):  # a machine without IPv6
        sockets.append(socket.create_server(("::", four.getsockname()[1]), family=socket.AF_INET6))
    for listening in sockets:
        listening.setblocking(False)
    try:
        yield Canary(four.getsockname()[1], sockets)
    finally:
        for listening in sockets:
            listening.close()
