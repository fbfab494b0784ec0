"""The way to PostgreSQL: which of the servers that an address names takes writes now, and how a dead one is noticed."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

import asyncpg

SILENT_SECONDS = 10
"""How long a server may leave what was sent to it without so much as an acknowledgement by its machine."""

PROBES = {"TCP_KEEPIDLE": 4, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 1000 * SILENT_SECONDS}
"""A machine that is gone sends no farewell: without these a connection to it stands for many minutes."""

ELSEWHERE = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.CannotConnectNowError,
    asyncpg.TargetServerAttributeNotMatched,
)
"""Not this server now, perhaps another: not there, silent, starting or stopping, or a standby."""

_answered: dict[str, str] = {}
"""The server of each address that last took a connection. It is asked first, so that one that died silently costs its
time limit once and not with every connection."""


class WatchedConnection(asyncpg.Connection):
    """A connection whose end is noticed also when nobody tells it."""

    def __init__(self, protocol: Any, transport: asyncio.Transport, *rest: Any) -> None:
        super().__init__(protocol, transport, *rest)
        _watch(transport.get_extra_info("socket"))


def _watch(line: socket.socket) -> None:
    if line.family == socket.AF_UNIX:
        return
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in PROBES.items():
        if hasattr(socket, name):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def servers_of(url: str) -> list[str]:
    """An address for each server that this one names, that which last took a connection first."""
    parts = urlsplit(url)
    who, at, hosts = parts.netloc.rpartition("@")
    if "," not in hosts:
        return [url]
    each = [urlunsplit(parts._replace(netloc=f"{who}{at}{host}")) for host in hosts.split(",")]
    return sorted(each, key=lambda server: server != _answered.get(url))


async def connected(
    url: str,
    *,
    timeout: float,
    connection_class: type[WatchedConnection] = WatchedConnection,
    **options: Any,
) -> asyncpg.Connection[asyncpg.Record]:
    """A connection to the first server that takes writes, each having its share of the time. Raises what the last one
    had to say."""
    *others, last = servers = servers_of(url)
    for server in servers:
        try:
            connection = await asyncpg.connect(
                server,
                timeout=timeout / len(servers),
                target_session_attrs=cast("Any", "read-write"),
                connection_class=connection_class,
                **options,
            )
        except ELSEWHERE:
            if server is last:
                raise
        else:
            if others:
                _answered[url] = server
            return connection
    raise AssertionError("unreachable")
