"""An address that names several servers, a way to the database that falls silent, and a worker that outlives both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from chaos.proxy import Proxy
from jobyard.bus.listener import Listener
from jobyard.clock import SystemClock
from jobyard.servers import connected, servers_of
from jobyard.store.database import open_pool
from worker.yard import Yard, until

Open = Callable[[], Awaitable[tuple[Proxy, int]]]


@pytest.fixture
async def way(yard: Yard) -> AsyncIterator[Open]:
    """Opens ways to the yard's server, each as if it were a server of its own."""
    opened: list[Proxy] = []

    async def open() -> tuple[Proxy, int]:
        proxy = Proxy(Path(parse_qs(urlsplit(yard.url).query)["host"][0]) / ".s.PGSQL.5432")
        opened.append(proxy)
        return proxy, await proxy.open()

    yield open
    for proxy in opened:
        proxy.close()


def address(yard: Yard, *ports: int) -> str:
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return f"postgresql://jobyard@{hosts}{urlsplit(yard.url).path}?sslmode=disable"


def test_each_server_of_an_address_has_an_address() -> None:
    one = "postgresql://u:p@db/x?sslmode=disable"
    assert servers_of(one) == [one]
    assert servers_of("postgresql://u:p@a:1,b/x") == ["postgresql://u:p@a:1/x", "postgresql://u:p@b/x"]


@pytest.mark.parametrize("how", ["silent", "gone"])
async def test_the_next_server_is_taken_when_the_first_is(how: str, yard: Yard, way: Open) -> None:
    (first, first_port), (_, second_port) = await way(), await way()
    url = address(yard, first_port, second_port)
    pool = await open_pool(url, size=2, hot=True)
    assert await pool.fetchval("SELECT 1") == 1
    first.freeze() if how == "silent" else first.close()
    await pool.expire_connections()
    for connection in (await connected(url, timeout=2), await connected(url, timeout=2)):
        assert await connection.fetchval("SELECT 1") == 1
        connection.terminate()
    assert servers_of(url)[0] == address(yard, second_port), "it is asked first from now on"
    pool.terminate()


async def test_a_server_that_takes_no_writes_is_passed_over(yard: Yard) -> None:
    name = await yard.db.fetchval("SELECT current_database()")
    await yard.db.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(asyncpg.TargetServerAttributeNotMatched):
        await connected(yard.url, timeout=10)


async def test_a_worker_goes_on_at_the_other_server_after_a_failover(yard: Yard, way: Open) -> None:
    (first, first_port), (_, second_port) = await way(), await way()
    there = Yard(address(yard, first_port, second_port), yard.db, yard.pool, yard.lanes)

    async def handle() -> None:
        await asyncio.sleep(0.005)

    await yard.add(count=200)
    async with there.working({"t": handle}) as working:
        await until(lambda: yard.db.fetchval("SELECT count(*) > 20 FROM jobyard.done"), "it works")
        first.close()
        late = await yard.add(count=20)
        await yard.all_ended(20)
        assert {await yard.status(job) for job in late} == {"completed"}
        await until(lambda: working.worker.ready, "it is ready again")
    assert await yard.db.fetchval("SELECT count(*) FROM jobyard.done WHERE attempt <> 1") == 0


async def test_while_its_listener_is_frozen_a_worker_polls_and_then_listens_again(
    yard: Yard, way: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobyard.bus.listener.CHECK_SECONDS", 0.5)
    proxy, port = await way()
    bus = Listener(address(yard, port), SystemClock())

    async def handle() -> None: ...

    async with yard.working({"t": handle}, wakeups=bus) as working:
        await until(lambda: bus.healthy, "it listens")
        await working.idle(yard)
        proxy.freeze()
        (job,) = await yard.add()
        await yard.end_of(job)
        await until(lambda: not bus.healthy, "the silence is noticed")
        proxy.cut()
        proxy.thaw()
        await until(lambda: bus.healthy, "it listens again")
