"""Names to addresses, by the system's resolver, each in a thread that nobody has to wait for."""

import asyncio
import socket
from contextlib import suppress
from ipaddress import ip_address
from threading import Thread

from jobyard.outgoing.guard import Address

MAX_LOOKUPS = 64
"""Names that one client looks up at a time; a name server that is silent keeps its threads for up to 30 s."""


class Resolver:
    """Looks names up in daemon threads: the pools of asyncio and uvloop are few threads that others wait for too, and
    would keep a process that ends from ending."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(MAX_LOOKUPS)

    async def look_up(self, host: str) -> list[Address]:
        """Every address of the host, each once, in the system's order of preference. Raises OSError."""
        await self._turns.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Address]] = loop.create_future()
        Thread(target=self._ask, args=(host, loop, answer), daemon=True, name=f"look up {host}").start()
        return await answer

    def _ask(self, host: str, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[list[Address]]) -> None:
        try:
            # As bytes: Python encodes text by a rule for names that differs from the one we have applied.
            found = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(ip_address(where[0]) for *_, where in found))
        except OSError as trouble:
            addresses = trouble
        with suppress(RuntimeError):  # the loop has ended meanwhile, and so has everybody who waited
            loop.call_soon_threadsafe(self._tell, answer, addresses)

    def _tell(self, answer: asyncio.Future[list[Address]], addresses: list[Address] | OSError) -> None:
        self._turns.release()
        if answer.done():
            return
        if isinstance(addresses, OSError):
            answer.set_exception(addresses)
        else:
            answer.set_result(addresses)
