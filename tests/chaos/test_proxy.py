"""The proxy of the kill harness holds, passes on and cuts as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from chaos.proxy import Proxy
from worker.yard import until

PATIENCE_SECONDS = 10


@dataclass
class Echo:
    """A server that answers what it hears, and a client on the other side of the proxy."""

    proxy: Proxy
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    heard: bytearray

    async def answer(self, length: int) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.readexactly(length)


@pytest.fixture
async def echo(tmp_path: Path) -> AsyncIterator[Echo]:
    heard = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1000):
                heard.extend(data)
                writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "socket")
    proxy = Proxy(tmp_path / "socket")
    reader, writer = await asyncio.open_connection("127.0.0.1", await proxy.open())
    yield Echo(proxy, reader, writer, heard)
    writer.close()
    proxy.close()
    server.close()


async def test_what_is_sent_arrives_and_what_is_answered_comes_back(echo: Echo):
    echo.writer.write(b"hello")
    assert await echo.answer(5) == b"hello"


async def test_a_frozen_proxy_holds_what_is_sent_and_passes_it_on_when_it_thaws(echo: Echo):
    echo.writer.write(b"one")
    await echo.answer(3)
    echo.proxy.freeze()
    echo.writer.write(b"two")
    other_reader, other_writer = await asyncio.open_connection(*echo.writer.get_extra_info("peername"))
    other_writer.write(b"three")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await asyncio.wait(
                [asyncio.create_task(other_reader.read(1)), asyncio.create_task(echo.reader.read(1))],
                return_when=asyncio.FIRST_COMPLETED,
            )
    assert bytes(echo.heard) == b"one"
    echo.proxy.thaw()
    await until(lambda: len(echo.heard) == len("onetwothree"), "what was held has arrived")
    other_writer.close()


async def test_held_answers_are_lost_by_a_cut_and_the_request_is_done(echo: Echo):
    echo.writer.write(b"one")
    await echo.answer(3)
    echo.proxy.freeze(requests=False)
    echo.writer.write(b"two")
    await until(lambda: bytes(echo.heard) == b"onetwo", "the request was done")
    echo.proxy.cut()
    with pytest.raises(ConnectionResetError):
        await echo.answer(3)


async def test_after_a_cut_a_new_connection_can_be_made(echo: Echo):
    echo.writer.write(b"one")
    await echo.answer(3)
    echo.proxy.cut()
    reader, writer = await asyncio.open_connection(*echo.writer.get_extra_info("peername"))
    writer.write(b"again")
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await reader.readexactly(5) == b"again"
    writer.close()
