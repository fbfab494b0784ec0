"""Changes the bus of a fleet at work, by its setting and a rolling restart: one process after the other."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence

from chaos.fleet import Fleet, Supervised
from chaos.monkey import Fault, fault_since

SETTLE_SECONDS = 2.0
"""How long a fleet works with one bus before it is switched to the next."""


class Switcher:
    """In the place of the monkey. The fleet begins with the first of `buses`."""

    def __init__(self, fleet: Fleet, buses: Sequence[str]) -> None:
        self._fleet = fleet
        self._buses = buses
        self.done: list[Fault] = []
        self.stop_seconds: list[float] = []

    async def run(self, over: Callable[[], bool]) -> None:
        """Through all of them, whether it is over or not."""
        for bus in self._buses[1:]:
            await asyncio.sleep(SETTLE_SECONDS)
            for member in self._fleet.members:
                await self._restart(member, bus)
        while not over():  # noqa: ASYNC110 - what is awaited is time
            await asyncio.sleep(0.1)

    async def _restart(self, member: Supervised, bus: str) -> None:
        member.environment = {**member.environment, "JOBYARD_BUS": bus}
        while member.process is None or member.process.returncode is not None:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
        process, pid, began = member.process, member.pid, time.monotonic()
        with fault_since(f"switch {member.role} to {bus.partition(':')[0]}", pid, self.done):
            member.tell(signal.SIGTERM)
            await process.wait()
            self.stop_seconds.append(time.monotonic() - began)
            while member.process is process:  # noqa: ASYNC110 - its supervisor starts the next
                await asyncio.sleep(0.05)
