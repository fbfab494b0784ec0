"""Requests that wait for the end of a job. One query answers for all of them, however many there are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from uuid import UUID

from jobyard.api.bodies import ClientGone
from jobyard.domain.errors import Overloaded
from jobyard.loop import Loop
from jobyard.ports import Clock

QUICK_SECONDS = 0.025
SLOW_SECONDS = 0.1
YOUNG_SECONDS = 1.0
"""While somebody has waited for less than this, the database is asked quickly: most jobs are short."""

Run = tuple[UUID, int]
"""A job and the number of its run."""


class Waiters:
    """`finished` tells which of these runs are over. At most `limit` requests wait at a time."""

    def __init__(
        self, finished: Callable[[Sequence[Run]], Awaitable[Sequence[Run]]], clock: Clock, limit: int
    ) -> None:
        self._finished = finished
        self._clock = clock
        self._limit = limit
        self._waiting: dict[Run, set[asyncio.Future[None]]] = {}
        self._count = 0
        self._somebody = asyncio.Event()
        self._newest = self._asked = float("-inf")
        self._loop = Loop("waiters", self._ask, clock)
        self._asking: asyncio.Task[None] | None = None
        self._draining = False

    def __len__(self) -> int:
        return self._count

    async def wait(self, run: Run, seconds: float, client_leaves: Coroutine[None, None, None]) -> None:
        """Returns when the run is over, the time is up, or this process is about to stop. Raises ClientGone as soon
        as the client has left, and Overloaded when too many wait already."""
        if self._draining or self._count >= self._limit:
            client_leaves.close()
            if self._draining:
                return
            raise Overloaded(f"{self._limit} requests are waiting already")
        over = self._enter(run)
        leaving = asyncio.create_task(client_leaves)
        try:
            await asyncio.wait((over, leaving), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._leave(run, over)
            if not leaving.done():
                leaving.cancel()
        if leaving.done() and not over.done():
            raise ClientGone

    async def drain(self) -> None:
        """Answer everybody at once, and from now on let nobody wait."""
        self._draining = True
        for run in list(self._waiting):
            self._release(run)
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait((self._asking,))

    def _enter(self, run: Run) -> asyncio.Future[None]:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(run, set()).add(over)
        self._count += 1
        self._newest = self._clock.now()
        self._somebody.set()
        if self._asking is None:
            self._asking = asyncio.create_task(self._loop.run(), name="waiters")
        return over

    def _leave(self, run: Run, over: asyncio.Future[None]) -> None:
        self._count -= 1
        others = self._waiting.get(run, set())
        others.discard(over)
        if not others:
            self._waiting.pop(run, None)
        if not self._waiting:
            self._somebody.clear()

    def _release(self, run: Run) -> None:
        for over in self._waiting.pop(run, ()):
            if not over.done():
                over.set_result(None)

    async def _ask(self) -> float:
        """A step of the loop: asks when it is time to, and sleeps while nobody waits."""
        await self._somebody.wait()
        now = self._clock.now()
        pause = QUICK_SECONDS if now - self._newest < YOUNG_SECONDS else SLOW_SECONDS
        if now - self._asked >= pause:
            self._asked = now
            for run in await self._finished(list(self._waiting)):
                self._release(run)
        return QUICK_SECONDS
