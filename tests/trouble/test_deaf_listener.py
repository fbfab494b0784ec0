"""F22: a listener that does not read must not hold up those who write, nor vacuum."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobyard.bus.postgres import CHANNEL, SESSION
from jobyard.servers import connected
from jobyard.store.embedded import EmbeddedPostgres
from worker.yard import until

ADDRESS = "127.77.0.22"
PORT = 5432
MESSAGES = 1_000_000
A_STATEMENT = 50_000


@pytest.fixture
def server(server_folder: Path) -> Iterator[str]:
    """The address of a server that is reached by TCP: where a connection is a pipe, there is nothing to end it by."""
    try:
        socket.create_server((ADDRESS, PORT)).close()
    except OSError as taken:
        pytest.skip(f"the port of a PostgreSQL on {ADDRESS} is taken: {taken}")
    with EmbeddedPostgres(server_folder, settings={"listen_addresses": ADDRESS, "fsync": "off"}):
        yield f"postgresql://jobyard@{ADDRESS}:{PORT}/jobyard"


async def test_a_listener_that_reads_nothing_stops_no_writer_and_vacuum_only_for_seconds(server: str) -> None:
    assert SESSION["tcp_user_timeout"] == "20s"
    deaf = await connected(server, timeout=10, server_settings=SESSION | {"tcp_user_timeout": "2s"})
    writer = await connected(server, timeout=10)

    async def is_held_up() -> bool:
        return await writer.fetchval(
            "SELECT count(*) = 1 FROM pg_stat_activity WHERE pid = $1 AND backend_xmin IS NOT NULL",
            deaf.get_server_pid(),
        )

    async def is_gone() -> bool:
        return await writer.fetchval("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $1", pid)

    pid = deaf.get_server_pid()
    await deaf.add_listener(CHANNEL, lambda *_: None)
    deaf._transport.pause_reading()
    for _ in range(MESSAGES // A_STATEMENT):
        await writer.execute(
            f"SELECT pg_notify('{CHANNEL}', n || '|*') FROM generate_series(1, {A_STATEMENT}) n"
        )
    await until(is_held_up, "its session stands in the middle of a message")
    await until(is_gone, "the server has ended it")
    assert await writer.fetchval("SELECT pg_notification_queue_usage()") < 0.001
    deaf.terminate()
    await writer.close()
