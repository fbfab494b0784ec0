"""A way to the database that can freeze and break: one a process, so that one alone can lose it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from pathlib import Path

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class _End(asyncio.Protocol):
    """One end of a connection: what arrives here leaves at the other end, unless it is held. While it is held nothing
    passes, also not that this end has gone."""

    def __init__(self, *, unwanted: bool = False) -> None:
        self._unwanted = unwanted
        self.other: _End | None = None
        self.held_back = False
        self._waiting = bytearray()
        self._transport: asyncio.Transport | None = None
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] - uvloop's are no subclasses of asyncio's
        if self._unwanted:
            self.cut()

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        self.pass_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self.pass_on()

    def pass_on(self) -> None:
        other = self.other
        if self.held_back or other is None or other._transport is None or other.gone:
            return
        if self._waiting:
            other._transport.write(bytes(self._waiting))
            self._waiting.clear()
        if self.gone:
            other._transport.close()

    def cut(self) -> None:
        if self._transport is None or self.gone:
            return
        with contextlib.suppress(OSError):
            self._transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE
            )
        self._transport.abort()


class Proxy:
    """Listens on a port of its own and passes everything on to the server's unix socket, or its port."""

    def __init__(self, server: Path | int, host: str = "127.0.0.1") -> None:
        self._server = server
        self._host = host
        self._refuses = False
        self._lines: set[tuple[_End, _End]] = set()
        self._holds_requests = self._holds_answers = False
        self._opening: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None

    async def open(self) -> int:
        """Its port."""
        self._listener = await asyncio.get_running_loop().create_server(self._accept, "127.0.0.1", 0)
        return int(self._listener.sockets[0].getsockname()[1])

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self.cut()

    def freeze(self, *, requests: bool = True, answers: bool = True) -> None:
        """Hold what is sent from now on, without a word to anybody."""
        self._holds_requests, self._holds_answers = requests, answers
        self._apply()

    def thaw(self) -> None:
        """Pass on what was held."""
        self.freeze(requests=False, answers=False)

    def cut(self) -> None:
        """Reset all connections; what was held is lost. New ones can be made."""
        for line in self._lines:
            for end in line:
                end.cut()
        self._lines.clear()

    def refuse(self) -> None:
        """Reset all connections, and every new one."""
        self._refuses = True
        self.cut()

    def accept(self) -> None:
        self._refuses = False

    def _accept(self) -> _End:
        client = _End(unwanted=self._refuses)
        if self._refuses:
            return client
        task = asyncio.create_task(self._connect(client))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return client

    async def _connect(self, client: _End) -> None:
        loop = asyncio.get_running_loop()
        try:
            if isinstance(self._server, int):
                _, server = await loop.create_connection(_End, self._host, self._server)
            else:
                _, server = await loop.create_unix_connection(_End, str(self._server))
        except OSError:
            client.cut()
            return
        client.other, server.other = server, client
        self._lines = {line for line in self._lines if not all(end.gone for end in line)}
        self._lines.add((client, server))
        self._apply()

    def _apply(self) -> None:
        for client, server in list(self._lines):
            client.held_back, server.held_back = self._holds_requests, self._holds_answers
            client.pass_on()
            server.pass_on()
