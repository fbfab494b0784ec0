"""A bad broker: between those who announce jobs and those who hear of them it loses, doubles, delays, disorders, and puts
garbage in between, as a seed decides.

The maintainer publishes into the namespace TOLD and the workers listen in HEARD; what of the one reaches the other goes
through here.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from jobyard.domain.announcement import jobs_topic, workers_subscription
from jobyard.ports import BusUnavailable, EventBus, Message, Subscription

TOLD, HEARD = "told", "heard"
LONGEST_DELAY_SECONDS = 5.0
GATHER_SECONDS = 0.1
AGAIN_SECONDS = 0.2

WAYS = {"passed": 0.5, "lost": 0.15, "doubled": 0.15, "delayed": 0.15, "garbage": 0.05}


class Meddler:
    def __init__(self, bus: EventBus, seed: int, types: Sequence[str]) -> None:
        self._bus = bus
        self._random = random.Random(f"meddler {seed}")
        self._types = types
        self._sent = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.done = Counter[str]()

    @asynccontextmanager
    async def meddling(self) -> AsyncGenerator[None]:
        for type in self._types:
            for namespace in (TOLD, HEARD):
                await self._bus.ensure(jobs_topic(namespace, type), [_subscription(namespace, type)])
            self._start(self._meddle(type))
        try:
            yield
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, work) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _meddle(self, type: str) -> None:
        async with self._bus.subscribe(_subscription(TOLD, type), 1000) as deliveries:
            waiting: list[Message] = []
            heard = asyncio.Event()

            async def pass_on() -> None:
                while True:
                    await heard.wait()
                    await asyncio.sleep(GATHER_SECONDS)
                    heard.clear()
                    batch = waiting[:]
                    waiting.clear()
                    await self._pass_on(type, batch)

            self._start(pass_on())
            async for delivery in deliveries:
                waiting.append(delivery.message)
                heard.set()
                await delivery.ack()

    async def _pass_on(self, type: str, messages: list[Message]) -> None:
        """In no certain order."""
        self._random.shuffle(messages)
        now: list[Message] = []
        for message in messages:
            (way,) = self._random.choices(list(WAYS), list(WAYS.values()))
            self.done[way] += 1
            match way:
                case "lost":
                    continue
                case "doubled":
                    now += [self._as_new(message.body), self._as_new(message.body)]
                case "delayed":
                    self._start(self._later(type, self._as_new(message.body)))
                case "garbage":
                    now += [self._as_new(self._random.randbytes(30)), self._as_new(message.body)]
                case _:
                    now.append(self._as_new(message.body))
        await self._publish(type, now)

    async def _later(self, type: str, message: Message) -> None:
        await asyncio.sleep(self._random.uniform(0, LONGEST_DELAY_SECONDS))
        await self._publish(type, [message])

    async def _publish(self, type: str, messages: list[Message]) -> None:
        while messages:
            with contextlib.suppress(BusUnavailable):
                await self._bus.publish(jobs_topic(HEARD, type), messages)
                return
            await asyncio.sleep(AGAIN_SECONDS)

    def _as_new(self, body: bytes) -> Message:
        """The broker is not to notice that it knows it."""
        self._sent += 1
        return Message(str(self._sent), body)


def _subscription(namespace: str, type: str) -> Subscription:
    return Subscription(jobs_topic(namespace, type), workers_subscription(namespace, type))
