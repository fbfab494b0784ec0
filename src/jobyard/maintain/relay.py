"""The relay: tells other services what happened to jobs, over an event bus. It reads the log without gaps, publishes, and
marks how far it came: at least once, each time with the same id. Any number of relays share the work."""

from __future__ import annotations

import asyncio
import contextlib

from jobyard.domain.announcement import events_topic
from jobyard.maintain.cloud_events import LARGEST_RESULT, cloud_event
from jobyard.ports import Clock, EventBus
from jobyard.store import log_reader
from jobyard.store.database import Pool
from jobyard.store.log_reader import SHARDS, Page, Place, Turn
from jobyard.telemetry import metrics

PUBLISH_MESSAGES = 1000
BUSY_SECONDS, BUSY_FOR_SECONDS = 0.02, 1.0
IDLE_SECONDS = 0.1
"""How long it waits before it looks again: BUSY_SECONDS for BUSY_FOR_SECONDS after there was something."""

LEAVE_SECONDS = 1.0
LAG_SECONDS = 5.0
"""How often it measures how far it is behind."""


class Relay:
    def __init__(self, pool: Pool, bus: EventBus, namespace: str, clock: Clock) -> None:
        self._pool = pool
        self._bus = bus
        self._topic = events_topic(namespace)
        self._source = f"/{namespace}"
        self._clock = clock
        self._begun = False
        self._ensured = False
        self._behind = False
        self._busy_until = self._measure_at = float("-inf")
        self._at_work = asyncio.Lock()
        self._leaving = False

    async def leave(self) -> None:
        """Its shards are free for others at once, unless the bus takes long for the page that it has now."""
        self._leaving = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS), self._at_work:
                pass

    async def step(self) -> float:
        """Of the loop: publish the next page of what this relay has a turn at."""
        try:
            async with self._at_work:
                return IDLE_SECONDS if self._leaving else await self._step()
        except Exception:
            # What it found before may be gone: the database restored, the broker without its topics.
            self._begun = self._ensured = False
            raise

    async def _step(self) -> float:
        turn = await self._next_turn()
        now = self._clock.now()
        if turn is None:
            self._behind = False
            return BUSY_SECONDS if now < self._busy_until else IDLE_SECONDS
        await self._publish_page(turn)
        self._busy_until = self._clock.now() + BUSY_FOR_SECONDS
        return 0.0

    async def _next_turn(self) -> Turn | None:
        async with self._pool.acquire() as connection:
            if not self._begun:
                await log_reader.begin(connection)
                self._begun = True
            # Ticks go on while the broker is away, so that what is read later comes in small pages.
            await log_reader.make_tick(connection)
            if self._clock.now() >= self._measure_at:
                metrics.RELAY_LAG.set(await log_reader.lag(connection))
                self._measure_at = self._clock.now() + LAG_SECONDS
            # One shard at a time while there is much to do, so that other relays have theirs.
            return await log_reader.take(connection, 1 if self._behind else SHARDS)

    async def _publish_page(self, turn: Turn) -> None:
        page: Page | None = None
        try:
            if not self._ensured:
                await self._bus.ensure(self._topic)
                self._ensured = True
            page = await self._read(turn)
            await self._publish(page)
        except BaseException:
            await self._mark(turn, turn.place)
            raise
        await self._mark(turn, page.next)
        self._behind = page.next.upto is not None

    async def _read(self, turn: Turn) -> Page:
        async with self._pool.acquire() as connection:
            return await log_reader.read(connection, turn)

    async def _publish(self, page: Page) -> None:
        for at in range(0, len(page.facts), PUBLISH_MESSAGES):
            facts = page.facts[at : at + PUBLISH_MESSAGES]
            async with self._pool.acquire() as connection:
                known = await log_reader.known_of(connection, facts, LARGEST_RESULT)
            largest = self._bus.capabilities.largest_message
            messages = [
                cloud_event(fact, row, self._source, largest) for fact, row in zip(facts, known, strict=True)
            ]
            await self._bus.publish(self._topic, messages)
            metrics.EVENTS_PUBLISHED.add(by=len(messages))

    async def _mark(self, turn: Turn, place: Place) -> None:
        async with self._pool.acquire() as connection:
            await log_reader.mark(connection, turn, place)
