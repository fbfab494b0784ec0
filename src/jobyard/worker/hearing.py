"""Listens for announced jobs over an event bus, for as long as the worker has room for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from jobyard import telemetry
from jobyard.domain.announcement import (
    Announcement,
    NotAnAnnouncement,
    jobs_topic,
    workers_subscription,
)
from jobyard.loop import Loop, cancelled
from jobyard.ports import Clock, EventBus, Subscription
from jobyard.telemetry import LogEvent, metrics
from jobyard.worker.inbox import Inbox

FULL_SECONDS = 1.0
"""How long a worker without room keeps what it heard to itself."""

GROW_SECONDS = 1.0
"""How long it listens, before it may listen for more at a time."""


class Hearing:
    """`room`: how many attempts the worker could take now."""

    def __init__(
        self,
        bus: EventBus,
        namespace: str,
        types: Sequence[str],
        clock: Clock,
        inbox: Inbox,
        room: Callable[[], int],
    ) -> None:
        self._bus = bus
        self._subscriptions = [
            Subscription(jobs_topic(namespace, type), workers_subscription(namespace, type)) for type in types
        ]
        self._clock = clock
        self._inbox = inbox
        self._room = room
        self._room_made = asyncio.Event()
        self._loop = Loop("announcements", self._listen_while_there_is_room, clock)
        self._ensured = False
        self._running: asyncio.Task[None] | None = None

    @property
    def works(self) -> bool:
        """Whether announcements arrive now, as far as one can tell."""
        return self._ensured and self._loop.healthy and self._bus.healthy

    def room_made(self) -> None:
        self._room_made.set()

    async def run(self) -> None:
        self._running = asyncio.create_task(self._loop.run(), name="announcements")
        try:
            await self._running
        finally:
            await cancelled(self._running)

    async def leave(self) -> None:
        if self._running is not None:
            await cancelled(self._running)

    async def _listen_while_there_is_room(self) -> float:
        if not self._ensured:
            for subscription in self._subscriptions:
                await self._bus.ensure(subscription.topic, [subscription])
            self._ensured = True
            telemetry.info(LogEvent.HEARING, subscriptions=[it.name for it in self._subscriptions])
        await self._until_there_is_room()
        in_flight = max(1, self._room())
        async with AsyncExitStack() as until_left:
            readers: list[asyncio.Task[None]] = []
            for subscription in self._subscriptions:
                readers.append(asyncio.create_task(self._hear(subscription, in_flight), name="hear"))
                until_left.push_async_callback(cancelled, readers[-1])
            await self._until_full_or_outgrown(in_flight, readers)
            await self._inbox.acked()
            self._inbox.forget()
        return 0.0

    async def _hear(self, subscription: Subscription, in_flight: int) -> None:
        async with self._bus.subscribe(subscription, in_flight) as deliveries:
            async for delivery in deliveries:
                try:
                    announcement = Announcement.decoded(delivery.message.body)
                except NotAnAnnouncement:
                    telemetry.warning(
                        LogEvent.ANNOUNCEMENT_STRANGE,
                        subscription=subscription.name,
                        message=delivery.message.id,
                    )
                    await delivery.ack()
                    continue
                metrics.HEARD.add()
                self._inbox.put(announcement, delivery)

    async def _until_there_is_room(self) -> None:
        while self._room() <= 0:
            self._room_made.clear()
            await self._room_made.wait()

    async def _until_full_or_outgrown(self, in_flight: int, readers: Sequence[asyncio.Task[None]]) -> None:
        """What it has heard and cannot take is for others; and a worker that got faster listens for more."""
        since = self._clock.now()
        full_for = 0.0
        while True:
            await self._clock.sleep(FULL_SECONDS / 4)
            for reader in readers:
                if reader.done():
                    reader.result()
            room = self._room()
            if self._clock.now() - since >= GROW_SECONDS and room > 2 * in_flight:
                return
            full_for = full_for + FULL_SECONDS / 4 if room <= 0 and len(self._inbox) else 0.0
            if full_for >= FULL_SECONDS:
                return
