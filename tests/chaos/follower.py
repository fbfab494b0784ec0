"""Another service, that hears of every event: whether any was never told, whatever died meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import asyncpg

from jobyard.domain.announcement import events_topic
from jobyard.ports import EventBus, Subscription

PATIENCE_SECONDS = 60.0

TOLD = """
SELECT u.job || '/' || coalesce(u.lease, 0) || '.' || e.kind
FROM jobyard.event e, unnest(e.jobs, e.leases) AS u (job, lease)
"""


class Follower:
    def __init__(self, bus: EventBus, namespace: str) -> None:
        self._bus = bus
        self._subscription = Subscription(events_topic(namespace), "audit")
        self.heard: set[str] = set()
        self.repeats = 0

    @asynccontextmanager
    async def following(self) -> AsyncGenerator[None]:
        await self._bus.ensure(self._subscription.topic, [self._subscription])
        listening = asyncio.create_task(self._listen())
        try:
            yield
        finally:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening

    async def _listen(self) -> None:
        async with self._bus.subscribe(self._subscription, 1000) as deliveries:
            async for delivery in deliveries:
                self.repeats += delivery.message.id in self.heard
                self.heard.add(delivery.message.id)
                await delivery.ack()

    async def missing(self, connection: asyncpg.Connection[asyncpg.Record]) -> list[str]:
        """What the log has and nobody told, after some patience."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while True:
            told = {row[0] for row in await connection.fetch(TOLD)}
            missing = sorted(told - self.heard)
            if not missing or asyncio.get_running_loop().time() > deadline:
                return missing
            await asyncio.sleep(0.2)
