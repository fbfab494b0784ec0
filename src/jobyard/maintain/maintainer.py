"""Runs the maintainer's loops side by side until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

from jobyard import telemetry
from jobyard.loop import Loop
from jobyard.maintain.announcer import Announcer
from jobyard.maintain.due import Due
from jobyard.maintain.relay import Relay
from jobyard.maintain.retention import Retention
from jobyard.maintain.sample import Sampler
from jobyard.maintain.sweep import Sweep
from jobyard.ports import Clock
from jobyard.store.database import Pool
from jobyard.store.lanes import Lanes
from jobyard.telemetry import LogEvent

CONNECTIONS = 6
"""One a loop, so that a long deletion never delays a due job."""


class Maintainer:
    """Any number may run at once: every step is guarded in SQL. The pool is its own, and ends with it."""

    def __init__(
        self,
        pool: Pool,
        clock: Clock,
        completed_days: float,
        failed_days: float,
        announcer: Announcer | None = None,
        relay: Relay | None = None,
    ) -> None:
        steps: dict[str, Callable[[], Awaitable[float]]] = {
            "due": Due(pool).step,
            "sweep": Sweep(pool, Lanes()).step,
            "sample": Sampler(pool).step,
            "retention": Retention(pool, clock, completed_days, failed_days).step,
        }
        if announcer is not None:
            steps["announce"] = announcer.step
        if relay is not None:
            steps["relay"] = relay.step
        self._announcer = announcer
        self._relay = relay
        self.loops = [Loop(name, step, clock) for name, step in steps.items()]
        self._pool = pool
        self._stop = asyncio.Event()

    @property
    def ready(self) -> bool:
        return not self._stop.is_set() and all(self.parts.values())

    @property
    def parts(self) -> dict[str, bool]:
        """Whether each of its loops works now."""
        return {loop.name: loop.healthy for loop in self.loops}

    def stop(self) -> None:
        self._stop.set()

    async def run(self) -> None:
        telemetry.info(LogEvent.MAINTAIN_STARTED, loops=[loop.name for loop in self.loops])
        async with AsyncExitStack() as listening:
            if self._announcer is not None:
                await listening.enter_async_context(self._announcer.listening())
            tasks = [asyncio.create_task(loop.run(), name=loop.name) for loop in self.loops]
            await self._stop.wait()
            await asyncio.gather(*(it.leave() for it in (self._announcer, self._relay) if it is not None))
            await self._end(tasks)
        telemetry.info(LogEvent.MAINTAIN_STOPPED)

    async def _end(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        # Connections first: a loop that waits for a frozen database would not hear that it is cancelled.
        self._pool.terminate()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
