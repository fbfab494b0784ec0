"""Random faults, in an order that a seed decides."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from chaos.fleet import Fleet, Supervised

STOP_SECONDS_PROMISED = 9.0
LONGEST_STOP_SECONDS = 2 * STOP_SECONDS_PROMISED


@dataclass(frozen=True, slots=True)
class Fault:
    """One that was done. `pid`: of the process it befell; None where all were."""

    kind: str
    pid: int | None
    began: datetime
    ended: datetime


@contextmanager
def fault_since(kind: str, pid: int | None, done: list[Fault]) -> Iterator[None]:
    """What happens meanwhile is one."""
    began = datetime.now(UTC)
    yield
    done.append(Fault(kind, pid, began, datetime.now(UTC)))


class Monkey:
    def __init__(self, fleet: Fleet, seed: int, every_seconds: float) -> None:
        self._fleet = fleet
        self._random = random.Random(f"monkey {seed}")
        self._every_seconds = every_seconds
        self.done: list[Fault] = []
        self.stop_seconds: list[float] = []
        """How long each process took to end by SIGTERM."""

    async def run(self, over: Callable[[], bool]) -> None:
        """Faults until it is over; when this returns each has ended and nothing is held, stopped or cut."""
        deck = self._deck()
        async with asyncio.TaskGroup() as faults:
            while not over():
                await asyncio.sleep(self._random.uniform(0.3, 1.7) * self._every_seconds)
                kind, role, action = next(deck)
                faults.create_task(self._do(kind, role, action))

    def _deck(self) -> Iterator[tuple[str, str, Callable[[Supervised], Awaitable[None]]]]:
        """All kinds again and again, each time shuffled: none is missing in a short run."""
        cards = [
            ("kill", "worker", self._kill),
            ("kill", "worker", self._kill),
            ("kill", "api", self._kill),
            ("kill", "maintain", self._kill),
            ("stop", "worker", self._stop_and_continue),
            ("stop", "any", self._stop_and_continue),
            ("terminate", "worker", self._terminate),
            ("terminate", "any", self._terminate),
            ("freeze", "worker", self._freeze),
            ("freeze", "any", self._freeze),
            ("cut", "worker", self._cut),
            ("cut", "any", self._cut),
            ("lose answers", "worker", self._lose_answers),
            ("lose answers", "any", self._lose_answers),
            ("terminate backends", "all", self._terminate_backends),
            ("terminate backends", "all", self._terminate_backends),
            ("freeze all", "all", self._freeze_all),
            ("restart PostgreSQL", "all", self._restart_postgres),
        ]
        if self._fleet.brokers.killable is not None:
            cards += [("kill the broker", "all", self._restart_broker)] * 2
        while True:
            self._random.shuffle(cards)
            yield from cards

    async def _do(self, kind: str, role: str, action: Callable[[Supervised], Awaitable[None]]) -> None:
        victims = [
            member
            for member in self._fleet.members
            if role in (member.role, "any", "all") and member.pid and not member.busy
        ]
        if not victims:
            return
        victim = self._random.choice(victims)
        pid = None if role == "all" else victim.pid
        name = kind if role == "all" else f"{kind} {victim.role}"
        with fault_since(name, pid, self.done):
            if role == "all":
                await action(victim)
            else:
                with busy(victim):
                    await action(victim)

    def _beyond_the_lease(self) -> float:
        return self._fleet.lease_seconds * self._random.uniform(0.5, 2.5)

    async def _kill(self, victim: Supervised) -> None:
        victim.tell(signal.SIGKILL)

    async def _stop_and_continue(self, victim: Supervised) -> None:
        victim.tell(signal.SIGSTOP)
        try:
            await asyncio.sleep(self._beyond_the_lease())
        finally:
            victim.tell(signal.SIGCONT)

    async def _terminate(self, victim: Supervised) -> None:
        process, began = victim.process, time.monotonic()
        assert process is not None
        victim.tell(signal.SIGTERM)
        await process.wait()
        self.stop_seconds.append(time.monotonic() - began)

    async def _freeze(self, victim: Supervised) -> None:
        victim.proxy.freeze()
        try:
            await asyncio.sleep(self._beyond_the_lease())
            if self._random.random() < 0.5:
                victim.proxy.cut()
        finally:
            victim.proxy.thaw()

    async def _cut(self, victim: Supervised) -> None:
        victim.proxy.cut()

    async def _lose_answers(self, victim: Supervised) -> None:
        """What it asked for is done, and it never hears of it."""
        victim.proxy.freeze(requests=False)
        try:
            await asyncio.sleep(self._random.uniform(0.05, 0.5))
            victim.proxy.cut()
        finally:
            victim.proxy.thaw()

    async def _freeze_all(self, _: Supervised) -> None:
        members = self._fleet.members
        for member in members:
            member.proxy.freeze()
        try:
            await asyncio.sleep(self._beyond_the_lease())
        finally:
            for member in members:
                member.proxy.thaw()

    async def _restart_postgres(self, _: Supervised) -> None:
        await self._fleet.restart_postgres()

    async def _restart_broker(self, _: Supervised) -> None:
        broker = self._fleet.brokers.killable
        assert broker is not None
        async with self._fleet.restarting:
            broker.kill()
            await asyncio.sleep(self._random.uniform(0.0, 3.0))
            await asyncio.to_thread(broker.start)

    async def _terminate_backends(self, _: Supervised) -> None:
        async with self._fleet.restarting:
            connection = await self._fleet.connect()
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY random() LIMIT $1) p",
                self._random.randint(1, 8),
            )
            await connection.close()


@contextmanager
def busy(member: Supervised) -> Iterator[None]:
    member.busy = True
    try:
        yield
    finally:
        member.busy = False
