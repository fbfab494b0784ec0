"""The event bus in NATS JetStream: a stream for each topic, a durable pull consumer for each subscription, and one stream
for what was set aside."""

# nats-py leaves the types of some parameters open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from jobyard.bus import nats_wire as wire
from jobyard.bus.nats_subscriber import Subscriber
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

if TYPE_CHECKING:
    from nats.aio.client import Client, Server
    from nats.js.api import StreamConfig

LARGEST_MESSAGE = 1_000_000
"""The server's own limit is 1 MiB at first, for headers and body together."""

PATIENCE_SECONDS = 5.0
"""How long a call may wait for the server."""

CONNECT_SECONDS = 2
PING_SECONDS = 5
DUPLICATE_WINDOW_SECONDS = 600.0


class NatsMissing(JobyardError):
    """The client of NATS is not installed."""


class NatsBus:
    """Has one connection, opened when it is needed first; after that nats-py brings it back whenever it is lost."""

    capabilities = Capabilities(
        delays=True, orders=False, deduplicates=True, sets_aside=True, largest_message=LARGEST_MESSAGE
    )

    def __init__(self, url: str, clock: Clock, replicas: int = 1) -> None:
        if find_spec("nats") is None:
            raise NatsMissing(
                'NATS as the event bus needs nats-py, which is not installed; run `pip install "jobyard[nats]"` '
                "(in a checkout `make install`)"
            )
        self._url = url
        self._clock = clock
        self._replicas = replicas
        self._connection: Client | None = None
        self._calls: set[asyncio.Timeout] = set()
        self._opening = asyncio.Lock()
        self._subscribers: set[Subscriber] = set()
        self.healthy = True

    async def ensure(self, topic: str, subscriptions: Sequence[Subscription] = ()) -> None:
        async def make(connection: Client) -> None:
            await self._make_stream(connection, wire.stream_config(topic, DUPLICATE_WINDOW_SECONDS))
            await self._make_stream(connection, wire.set_aside_config())
            for subscription in subscriptions:
                await _make_consumer(connection, subscription)

        await self.do(make)

    async def publish(self, topic: str, messages: Sequence[Message]) -> None:
        sealed = [(message, wire.headers_of(message)) for message in messages]
        for message, _ in sealed:
            _fits(message, len(message.body), LARGEST_MESSAGE)

        async def send(connection: Client) -> None:
            for message, headers in sealed:
                _fits(message, wire.size(message.body, headers), connection.max_payload - wire.SPARE_BYTES)
            stream = connection.jetstream(timeout=PATIENCE_SECONDS)
            sent = (
                stream.publish(wire.subject(topic), it.body, headers=dict(headers)) for it, headers in sealed
            )
            for answer in await asyncio.gather(*sent, return_exceptions=True):
                if isinstance(answer, BaseException):
                    raise answer

        await self.do(send)

    @asynccontextmanager
    async def subscribe(
        self, subscription: Subscription, in_flight: int
    ) -> AsyncGenerator[AsyncIterator[Delivery]]:
        subscriber = Subscriber(self, subscription, in_flight, self._clock)
        self._subscribers.add(subscriber)
        taking = asyncio.create_task(
            Loop("messages", subscriber.step, self._clock).run(), name="take messages"
        )
        try:
            yield subscriber.deliveries()
        finally:
            await cancelled(taking)
            self._subscribers.discard(subscriber)
            await subscriber.hand_back()

    async def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):  # it was lost already, with something to send
                await self._connection.close()

    async def do(self, action: Callable[[Client], Awaitable[object]]) -> None:
        """With a connection. Raises BusUnavailable."""
        from nats.errors import Error

        try:
            async with asyncio.timeout(PATIENCE_SECONDS) as patience:
                connection = await self._connected()
                self._calls.add(patience)
                try:
                    await action(connection)
                finally:
                    self._calls.discard(patience)
        except (Error, OSError, TimeoutError) as trouble:
            self.healthy = False
            raise BusUnavailable(
                f"NATS as the event bus: {str(trouble) or type(trouble).__name__}"
            ) from trouble
        self.healthy = True

    async def _connected(self) -> Client:
        import nats

        async with self._opening:
            if self._connection is None:
                self._connection = await nats.connect(
                    self._url,
                    name="jobyard messages",
                    connect_timeout=CONNECT_SECONDS,
                    ping_interval=PING_SECONDS,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    reconnect_to_server_handler=_next_server,
                    pending_size=0,  # what cannot be sent now is refused, and not kept for later
                    error_cb=_ignored,
                    disconnected_cb=self._lost,
                    reconnected_cb=self._back,
                )
                # Who cannot reach it at first is told at once; who has reached it goes on trying.
                self._connection.options["max_reconnect_attempts"] = -1
            return self._connection

    async def _lost(self) -> None:
        """Whoever waits for an answer waits no longer."""
        for patience in self._calls:
            patience.reschedule(asyncio.get_running_loop().time())

    async def _back(self) -> None:
        for subscriber in self._subscribers:
            subscriber.ask_anew()

    async def _make_stream(self, connection: Client, config: StreamConfig) -> None:
        from nats.js.errors import NotFoundError

        manager = connection.jsm(timeout=PATIENCE_SECONDS)
        assert config.name is not None
        try:
            await manager.stream_info(config.name)
        except NotFoundError:
            await manager.add_stream(config, num_replicas=self._replicas)


async def _make_consumer(connection: Client, subscription: Subscription) -> None:
    from nats.js.errors import NotFoundError

    manager = connection.jsm(timeout=PATIENCE_SECONDS)
    stream, name = wire.stream_name(subscription.topic), wire.consumer_name(subscription.name)
    try:
        await manager.consumer_info(stream, name)
    except NotFoundError:
        await manager.add_consumer(stream, wire.consumer_config(subscription))


def _next_server(servers: list[Server], _: dict[str, Any]) -> tuple[Server, float]:
    """The one that failed least, and the pause before it."""
    best = min(servers, key=lambda server: server.reconnects)
    return best, backoff(best.reconnects + 1)


async def _ignored(_: Exception) -> None:
    """Whoever needs the connection meets the error, and tells it."""


def _fits(message: Message, size: int, limit: int) -> None:
    if size > limit:
        raise MessageTooLarge(f"message {message.id} has {size} bytes; a message may have {limit}")
