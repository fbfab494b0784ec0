"""Announces ready jobs over an event bus, so that workers hear of them there. One maintainer at a time does it; what it
does not announce, workers find by polling."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from uuid import uuid4

from jobyard import telemetry
from jobyard.domain.announcement import jobs_topic, workers_subscription
from jobyard.maintain.outstanding import Due, Outstanding
from jobyard.ports import BusUnavailable, Clock, EventBus, Message, Subscription, WakeUp, WakeUps
from jobyard.store import announcements
from jobyard.store.database import Pool
from jobyard.telemetry import LogEvent, metrics

DUTY_SECONDS = 5.0
"""How long after its announcer was killed nothing is announced, at most."""

RENEW_SECONDS = DUTY_SECONDS / 3
LOOK_SECONDS = 1.0
"""How often it looks at all lanes, beside the wake-ups."""

REFILL_SECONDS = 0.02
"""How often it looks at lanes that may hold more than it has announced; less and less often while nobody claims."""

COMPANY_SECONDS = 0.003
"""How long it waits after a look before it follows another wake-up: what comes fast shares one."""

PUBLISH_MESSAGES = 500
LEAVE_SECONDS = 1.0

WORKER = 0
"""As which jobyard.wake() tells the announcer; no worker has this id."""


class Announcer:
    """`ahead`: how many jobs of a lane may be announced and not claimed."""

    def __init__(
        self, pool: Pool, wakeups: WakeUps, bus: EventBus, namespace: str, ahead: int, clock: Clock
    ) -> None:
        self._pool = pool
        self._wakeups = wakeups
        self._bus = bus
        self._namespace = namespace
        self._clock = clock
        self._outstanding = Outstanding(ahead)
        # Of messages too: another database numbers its lanes and jobs alike, and the broker would take its for repeats.
        self._holder = uuid4()
        self._asking = asyncio.Lock()
        self._leaving = False
        self._held_until = self._renew_at = float("-inf")
        self._types: dict[int, str] = {}
        self._ensured: set[str] = set()
        self._woken: set[int] = set()
        self._look_everywhere_at = float("-inf")
        self._refill_at = 0.0
        self._refill_seconds = REFILL_SECONDS
        self._wake = asyncio.Event()

    @property
    def on_duty(self) -> bool:
        return self._clock.now() < self._held_until

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[None]:
        async with self._wakeups.subscribe(self.woken):
            yield

    def woken(self, wake: WakeUp) -> None:
        if wake.workers and WORKER not in wake.workers:
            return
        if wake.lanes:
            self._woken |= wake.lanes
        else:
            self._look_everywhere_at = float("-inf")
        self._wake.set()

    async def step(self) -> float:
        """Of the loop: announce what is ready, then wait until more may be."""
        if not await self._is_on_duty():
            return RENEW_SECONDS
        self._wake.clear()
        lanes = await self._lanes_to_look_at()
        if lanes:
            await self._announce(await self._due(lanes))
        await self._wait()
        return 0.0

    async def leave(self) -> None:
        """Another may begin at once."""
        self._leaving = True
        with contextlib.suppress(Exception):  # then its time ends
            async with asyncio.timeout(LEAVE_SECONDS), self._asking:
                if self.on_duty:
                    self._held_until = float("-inf")
                    async with self._pool.acquire() as connection:
                        await announcements.leave_duty(connection, self._holder)

    async def _is_on_duty(self) -> bool:
        now = self._clock.now()
        if now < self._renew_at:
            return self.on_duty
        had_it = self.on_duty
        async with self._asking:
            if self._leaving:
                return False
            async with self._pool.acquire() as connection:
                has_it = await announcements.take_duty(connection, self._holder, DUTY_SECONDS)
            self._held_until = now + DUTY_SECONDS if has_it else float("-inf")
        self._renew_at = now + RENEW_SECONDS
        if has_it and not had_it:
            self._outstanding.forget()
            self._look_everywhere_at = float("-inf")
            telemetry.info(LogEvent.ANNOUNCING, namespace=self._namespace)
        return has_it

    async def _lanes_to_look_at(self) -> list[int]:
        woken, self._woken = self._woken, set()
        now = self._clock.now()
        if now >= self._look_everywhere_at or not woken <= self._types.keys():
            async with self._pool.acquire() as connection:
                found = await announcements.lanes_that_hold_work(connection)
            self._types |= found
            self._look_everywhere_at = now + LOOK_SECONDS
            woken |= found.keys()
        # A lane that is named and unknown still had its job taken before we looked.
        lanes = woken & self._types.keys() - self._outstanding.full
        return sorted(lanes | self._outstanding.full if now >= self._refill_at else lanes)

    async def _due(self, lanes: Sequence[int]) -> list[Due]:
        now = self._clock.now()
        behind = self._outstanding.behind(lanes, now)
        async with self._pool.acquire() as connection:
            heads = await announcements.heads(connection, lanes, behind, self._outstanding.ahead)
        found = [
            due
            for lane, start in zip(lanes, behind, strict=True)
            for due in self._outstanding.due(lane, start, heads.get(lane, []), now)
        ]
        if now >= self._refill_at:
            self._refill_seconds = REFILL_SECONDS if found else min(2 * self._refill_seconds, LOOK_SECONDS)
            self._refill_at = now + self._refill_seconds
        return found

    async def _announce(self, due: Iterable[Due]) -> None:
        by_type: defaultdict[str, list[Due]] = defaultdict(list)
        for one in due:
            by_type[self._types[one.announcement.lane]].append(one)
        for type, some in by_type.items():
            topic = await self._ensured_topic(type)
            for at in range(0, len(some), PUBLISH_MESSAGES):
                batch = some[at : at + PUBLISH_MESSAGES]
                messages = [
                    Message(f"{self._holder.hex}.{one.id}", one.announcement.encoded()) for one in batch
                ]
                try:
                    await self._bus.publish(topic, messages)
                except BusUnavailable:
                    # It may have come back without what it had.
                    self._ensured.discard(type)
                    raise
                now = self._clock.now()
                for one in batch:
                    self._outstanding.announced(one, now)
                metrics.ANNOUNCED.add(by=len(batch))
                metrics.ANNOUNCED_AGAIN.add(by=sum(one.times > 0 for one in batch))

    async def _ensured_topic(self, type: str) -> str:
        """With the subscription of its workers, so that it keeps what is announced before the first of them comes."""
        topic = jobs_topic(self._namespace, type)
        if type not in self._ensured:
            await self._bus.ensure(topic, [Subscription(topic, workers_subscription(self._namespace, type))])
            self._ensured.add(type)
        return topic

    async def _wait(self) -> None:
        await self._clock.sleep(COMPANY_SECONDS)
        until = min(
            self._renew_at,
            self._look_everywhere_at,
            self._refill_at if self._outstanding.full else float("inf"),
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until - self._clock.now())):
                await self._wake.wait()
