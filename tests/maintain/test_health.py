from __future__ import annotations

import asyncio

import httpx
import pytest

from jobyard import health
from jobyard.health import Pages, health_server
from processes.program import free_port

HOST = "127.0.0.1"
OK = Pages(lambda: True, lambda: {"due": True}, lambda: b"jobyard_ready 1.0\n")


async def ask(port: int, request: bytes) -> bytes:
    """What the server says to these bytes until it closes the connection."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(request)
    await writer.drain()
    try:
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_it_tells_whether_the_process_is_alive_and_ready() -> None:
    port, ready = free_port(), True
    pages = Pages(lambda: ready, lambda: {"due": True, "sweep": ready}, lambda: b"")
    async with (
        health_server(HOST, port, pages, None),
        httpx.AsyncClient(base_url=f"http://{HOST}:{port}") as client,
    ):
        for path, status, word in (("/healthz", 200, "alive"), ("/else", 404, "not found")):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()) == (status, {"status": word})
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (
            200, {"status": "ready", "parts": {"due": {"ok": True}, "sweep": {"ok": True}}},
        )  # fmt: skip
        ready = False
        assert (await client.get("/healthz")).status_code == 200
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (
            503, {"status": "not_ready", "parts": {"due": {"ok": True}, "sweep": {"ok": False}}},
        )  # fmt: skip


@pytest.mark.parametrize(
    "garbage",
    [
        b"\r\n\r\n",
        b"\0" * 100 + b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"x" * 100_000,
        b"GET /" + b"a" * 50_000 + b"\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
    ],
    ids=lambda garbage: repr(garbage[:12]),
)
async def test_garbage_is_no_healthy_answer_and_does_no_harm(garbage: bytes) -> None:
    port = free_port()
    async with health_server(HOST, port, OK, None):
        assert b"200" not in (await ask(port, garbage))[:20]
        assert (await ask(port, b"GET /healthz HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")


async def test_a_slow_client_is_let_go_and_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "REQUEST_SECONDS", 0.1)
    port = free_port()
    async with health_server(HOST, port, OK, None):
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"GET /healthz")
        assert (await ask(port, b"GET /healthz HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_a_client_that_says_nothing_cannot_delay_the_end() -> None:
    port = free_port()
    async with health_server(HOST, port, OK, None):
        _, writer = await asyncio.open_connection(HOST, port)
        await ask(port, b"GET /healthz HTTP/1.1\r\n\r\n")
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < health.REQUEST_SECONDS / 2
    writer.close()


async def test_without_a_port_there_is_no_server() -> None:
    async with health_server(HOST, None, OK, None):
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
