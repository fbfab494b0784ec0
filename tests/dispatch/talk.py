"""What the tests of dispatch say and hear over a bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from jobyard.domain.announcement import Announcement, jobs_topic, workers_subscription
from jobyard.ports import BusUnavailable, Capabilities, Delivery, EventBus, Message, Subscription
from worker.yard import NAMESPACE, Yard

TOPIC = jobs_topic(NAMESPACE, "t")
WORKERS = Subscription(TOPIC, workers_subscription(NAMESPACE, "t"))


@dataclass
class Eavesdropper:
    """Hears what workers would, and acks it."""

    heard: list[Message] = field(default_factory=list[Message])

    @property
    def announced(self) -> list[Announcement]:
        return [Announcement.decoded(message.body) for message in self.heard]


@asynccontextmanager
async def eavesdropping(bus: EventBus) -> AsyncIterator[Eavesdropper]:
    await bus.ensure(TOPIC, [WORKERS])
    ears = Eavesdropper()

    async def listen() -> None:
        async with bus.subscribe(WORKERS, 1000) as deliveries:
            async for delivery in deliveries:
                ears.heard.append(delivery.message)
                await delivery.ack()

    listening = asyncio.create_task(listen())
    try:
        yield ears
    finally:
        listening.cancel()
        await asyncio.wait([listening])


@asynccontextmanager
async def next_to(bus: EventBus) -> AsyncIterator[AsyncIterator[Delivery]]:
    """The deliveries that workers get, for a test that stands in line with them."""
    await bus.ensure(TOPIC, [WORKERS])
    async with bus.subscribe(WORKERS, 100) as deliveries:
        yield deliveries


async def ready(yard: Yard) -> list[Announcement]:
    rows = await yard.db.fetch("SELECT job, lane, seq FROM jobyard.ready ORDER BY lane, seq")
    return [Announcement(row["job"], row["lane"], row["seq"]) for row in rows]


async def announce(bus: EventBus, announcements: Sequence[Announcement], times: int = 0) -> None:
    await bus.ensure(TOPIC, [WORKERS])
    await bus.publish(TOPIC, [Message(f"{it.lane}.{it.seq}.{times}", it.encoded()) for it in announcements])


class Lossy:
    """A bus of which a test decides what becomes of a batch: `broken` raises and publishes nothing."""

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus
        self.broken = False
        self.lost = False
        self.published: list[Message] = []
        self.refused = asyncio.Event()

    @property
    def capabilities(self) -> Capabilities:
        return self._bus.capabilities

    @property
    def healthy(self) -> bool:
        return not self.broken

    async def ensure(self, topic: str, subscriptions: Sequence[Subscription] = ()) -> None:
        await self._bus.ensure(topic, subscriptions)

    async def publish(self, topic: str, messages: Sequence[Message], /) -> None:
        if self.broken:
            self.refused.set()
            raise BusUnavailable("broken by the test")
        self.published += messages
        if not self.lost:
            await self._bus.publish(topic, messages)

    def subscribe(self, subscription: Subscription, in_flight: int):
        return self._bus.subscribe(subscription, in_flight)

    async def close(self) -> None: ...
