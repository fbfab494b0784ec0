"""The event bus in Google Pub/Sub: a topic and its subscriptions as there, pulled, and one more topic for what was set
aside."""

# The official client leaves the types of some parameters open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar, cast

from jobyard import telemetry
from jobyard.bus import pubsub_wire as wire
from jobyard.bus.pubsub_connection import Connection, opened, passing, troubles
from jobyard.bus.pubsub_subscriber import Subscriber
from jobyard.domain.errors import JobyardError
from jobyard.loop import Loop, backoff, cancelled
from jobyard.ports import (
    BusUnavailable,
    Capabilities,
    Clock,
    Delivery,
    Message,
    MessageTooLarge,
    Subscription,
)
from jobyard.telemetry import LogEvent

if TYPE_CHECKING:
    from google.pubsub_v1 import types

LARGEST_MESSAGE = 9_000_000
REQUEST_BYTES, REQUEST_MESSAGES = 9_900_000, 1000
"""Pub/Sub takes 10 MB at a time; a dead letter gets more attributes, and has to fit still."""

PATIENCE_SECONDS = 5.0
"""How long a call may wait for the service, and how long it is repeated."""

BOUNDS: dict[str, Any] = {"retry": None, "timeout": PATIENCE_SECONDS}

T = TypeVar("T")


class PubsubMissing(JobyardError):
    """The client of Google Pub/Sub is not installed."""


class PubsubBus:
    """Has one channel, opened when it is needed first; gRPC brings it back whenever it is lost. Where
    PUBSUB_EMULATOR_HOST is set it goes there, as with Google's own libraries."""

    capabilities = Capabilities(
        delays=True, orders=True, deduplicates=False, sets_aside=True, largest_message=LARGEST_MESSAGE
    )

    def __init__(self, project: str, clock: Clock, namespace: str = "jobyard") -> None:
        if find_spec("google") is None or find_spec("google.pubsub_v1") is None:
            raise PubsubMissing(
                "Google Pub/Sub as the event bus needs google-cloud-pubsub, which is not installed; "
                'run `pip install "jobyard[gcp]"` (in a checkout `make install`)'
            )
        self.names = wire.Names(project, namespace)
        self._emulator = os.environ.get("PUBSUB_EMULATOR_HOST", "")
        self._clock = clock
        self._connection: Connection | None = None
        self._opening = asyncio.Lock()
        self.healthy = True

    async def ensure(self, topic: str, subscriptions: Sequence[Subscription] = ()) -> None:
        async def make(connection: Connection) -> None:
            for name in (self.names.topic(topic), self.names.set_aside_topic):
                await _make_topic(connection, name)
            await _make_subscription(connection, wire.set_aside_config(self.names))
            for subscription in subscriptions:
                found = await _make_subscription(
                    connection, wire.subscription_config(self.names, subscription)
                )
                if differs := wire.differences(found, self.names, subscription):
                    telemetry.warning(
                        LogEvent.SUBSCRIPTION_DIFFERS, subscription=found.name, differs="; ".join(differs)
                    )

        await self.do(make)

    async def publish(self, topic: str, messages: Sequence[Message]) -> None:
        for batch in list(self._batches(messages)):
            await self.publish_sealed(self.names.topic(topic), batch)

    async def publish_sealed(self, topic: str, batch: Sequence[types.PubsubMessage]) -> None:
        """Raises BusUnavailable."""
        await self.do(
            lambda connection: connection.publisher.publish(topic=topic, messages=list(batch), **BOUNDS)
        )

    def _batches(self, messages: Sequence[Message]) -> Iterator[list[types.PubsubMessage]]:
        """Raises MessageTooLarge."""
        from google.pubsub_v1 import types

        batch: list[types.PubsubMessage] = []
        room = REQUEST_BYTES
        for message in messages:
            _fits(message, len(message.body), LARGEST_MESSAGE)
            found = types.PubsubMessage(wire.sealed(message))
            size = cast("Any", types.PubsubMessage).pb(found).ByteSize() + 10
            _fits(message, size, REQUEST_BYTES)
            if size > room or len(batch) == REQUEST_MESSAGES:
                yield batch
                batch, room = [], REQUEST_BYTES
            batch.append(found)
            room -= size
        if batch:
            yield batch

    @asynccontextmanager
    async def subscribe(
        self, subscription: Subscription, in_flight: int
    ) -> AsyncGenerator[AsyncIterator[Delivery]]:
        subscriber = Subscriber(self, subscription, in_flight, self._clock)
        taking, watching = (
            asyncio.create_task(Loop(name, step, self._clock).run(), name=name)
            for name, step in (("messages", subscriber.step), ("message leases", subscriber.watch))
        )
        try:
            yield subscriber.deliveries()
        finally:
            await subscriber.leave()
            await cancelled(taking)
            await cancelled(watching)
            await subscriber.hand_back()

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.channel.close()

    async def do(self, action: Callable[[Connection], Awaitable[T]]) -> T:
        """With a connection, and again while that may help. Raises BusUnavailable."""
        trouble: Exception | None = None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                failures = 0
                while True:
                    try:
                        answer = await action(await self.connected())
                        break
                    except passing() as met:
                        trouble, failures = met, failures + 1
                        self.healthy = False
                        await self._clock.sleep(backoff(failures))
        except TimeoutError as late:
            raise self.unavailable(trouble or late) from late
        except troubles() as met:
            raise self.unavailable(met) from met
        self.healthy = True
        return answer

    def unavailable(self, trouble: Exception) -> BusUnavailable:
        self.healthy = False
        return BusUnavailable(f"Google Pub/Sub as the event bus: {str(trouble) or type(trouble).__name__}")

    async def connected(self) -> Connection:
        async with self._opening:
            if self._connection is None:
                self._connection = await opened(self._emulator)
            return self._connection


async def _make_topic(connection: Connection, name: str) -> None:
    from google.api_core.exceptions import AlreadyExists, NotFound

    publisher, bounds = connection.publisher, BOUNDS
    try:
        await publisher.get_topic(topic=name, **bounds)
    except NotFound:
        try:
            await publisher.create_topic(wire.topic_config(name), **bounds)
        except AlreadyExists:
            return  # another was quicker


async def _make_subscription(connection: Connection, config: dict[str, Any]) -> types.Subscription:
    """The one that is there in the end."""
    from google.api_core.exceptions import AlreadyExists, NotFound

    subscriber, bounds = connection.subscriber, BOUNDS
    try:
        return await subscriber.get_subscription(subscription=config["name"], **bounds)
    except NotFound:
        try:
            return await subscriber.create_subscription(config, **bounds)
        except AlreadyExists:
            return await subscriber.get_subscription(subscription=config["name"], **bounds)


def _fits(message: Message, size: int, limit: int) -> None:
    if size > limit:
        raise MessageTooLarge(f"message {message.id} has {size} bytes; a message may have {limit}")
