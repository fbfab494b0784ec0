"""Names are looked up beside each other, and a name server that is silent holds nobody up but its own callers."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from jobyard.outgoing import lookup
from jobyard.outgoing.lookup import Resolver
from worker.yard import until

STREAM = (socket.AF_INET, socket.SOCK_STREAM, 6, "")


class NameServer:
    """What the system answers; `silent.example` waits for `speak`."""

    def __init__(self) -> None:
        self.speak = threading.Event()
        self.asked: list[bytes] = []

    def answer(self, host, port, **options):
        self.asked.append(host)
        if host == b"silent.example":
            self.speak.wait(30)
        return [(*STREAM, ("192.0.2.1", 0)), (*STREAM, ("192.0.2.2", 0)), (*STREAM, ("192.0.2.1", 0))]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    names = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", names.answer)
    yield names
    names.speak.set()


async def test_every_address_is_given_once_in_order(names: NameServer) -> None:
    assert await Resolver().look_up("a.example") == [ip_address("192.0.2.1"), ip_address("192.0.2.2")]


async def test_the_system_knows_localhost() -> None:
    assert all(address.is_loopback for address in await Resolver().look_up("localhost"))


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example", "nobody.invalid"])
async def test_a_name_that_cannot_be_resolved_is_an_error_of_the_system(host: str) -> None:
    with pytest.raises(OSError, match=r"\w"):
        await Resolver().look_up(host)


async def test_silent_look_ups_delay_no_other(names: NameServer) -> None:
    resolver = Resolver()
    silent = [asyncio.create_task(resolver.look_up("silent.example")) for _ in range(40)]
    async with asyncio.timeout(20):
        await until(lambda: len(names.asked) == len(silent))
        assert await resolver.look_up("a.example")
        assert not any(task.done() for task in silent)
        names.speak.set()
        await asyncio.gather(*silent)


async def test_look_ups_are_bounded_and_a_caller_that_left_keeps_no_turn(
    names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "MAX_LOOKUPS", 2)
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, fault: faults.append(fault))
    resolver = Resolver()
    silent = [asyncio.create_task(resolver.look_up("silent.example")) for _ in range(2)]
    async with asyncio.timeout(20):
        await until(lambda: len(names.asked) == 2)
        third = asyncio.create_task(resolver.look_up("a.example"))
        for task in silent:
            task.cancel()
        await asyncio.gather(*silent, return_exceptions=True)
        assert b"a.example" not in names.asked  # the threads are still with the name server
        names.speak.set()
        assert await third
    assert faults == []


def test_an_answer_after_the_loop_has_ended_disturbs_nobody(names: NameServer) -> None:
    async def leave() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Resolver().look_up("silent.example"), 0.05)

    asyncio.run(leave())
    names.speak.set()
    for thread in threading.enumerate():  # what one of them raised would fail this test
        if thread.name == "look up silent.example":
            thread.join(10)


def test_a_silent_look_up_keeps_no_process_from_ending() -> None:
    program = """
import asyncio, socket, time
from jobyard.outgoing.lookup import Resolver
socket.getaddrinfo = lambda *a, **o: time.sleep(300)
async def main():
    try:
        await asyncio.wait_for(Resolver().look_up("silent.example"), 0.05)
    except TimeoutError:
        print("gave up")
asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "gave up\n", "")
