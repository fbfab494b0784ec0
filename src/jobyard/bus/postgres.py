"""The event bus in PostgreSQL: the default, with nothing to install. Messages are rows, a NOTIFY shortens the wait for
them, and a poll finds them without."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from jobyard import telemetry
from jobyard.bus.listener import CONNECT_SECONDS, SESSION
from jobyard.domain.errors import DatabaseUnavailable
from jobyard.loop import Loop, cancelled
from jobyard.ports import BusUnavailable, Capabilities, Clock, Message, MessageTooLarge, Subscription
from jobyard.servers import connected
from jobyard.store import messages
from jobyard.store.database import Connection, Pool, borrowed, open_pool
from jobyard.telemetry import LogEvent

LARGEST_MESSAGE = 10_000_000
PATIENCE_SECONDS = 5.0
"""How long a publish may wait for the database."""

POLL_SECONDS = 1.0
CONNECTIONS = 4


class PostgresBus:
    """Its connections are its own, opened when they are needed."""

    capabilities = Capabilities(
        delays=True, orders=True, deduplicates=True, sets_aside=True, largest_message=LARGEST_MESSAGE
    )

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self._pool: Pool | None = None
        self._opening = asyncio.Lock()
        self.healthy = True

    async def ensure(self, topic: str, subscriptions: Sequence[Subscription] = ()) -> None:
        await self.do(lambda connection: messages.make(connection, topic, subscriptions))

    async def publish(self, topic: str, batch: Sequence[Message]) -> None:
        for message in batch:
            if len(message.body) > LARGEST_MESSAGE:
                raise MessageTooLarge(
                    f"message {message.id} has {len(message.body)} bytes; a message may have {LARGEST_MESSAGE}"
                )
        await self.do(lambda connection: messages.publish(connection, topic, batch))

    @asynccontextmanager
    async def subscribe(
        self, subscription: Subscription, in_flight: int
    ) -> AsyncGenerator[AsyncIterator[PostgresDelivery]]:
        subscriber = _Subscriber(self, subscription, in_flight, self._clock)
        listening = asyncio.create_task(self._listen(subscriber.look), name="message listener")
        taking = asyncio.create_task(
            Loop("messages", subscriber.step, self._clock).run(), name="take messages"
        )
        try:
            yield subscriber.deliveries()
        finally:
            await cancelled(listening)
            await cancelled(taking)
            await subscriber.hand_back()

    async def close(self) -> None:
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None

    async def do(self, action: Callable[[Connection], Awaitable[None]]) -> None:
        """With a connection. Raises BusUnavailable."""
        try:
            async with (
                asyncio.timeout(PATIENCE_SECONDS),
                borrowed(await self._opened(), PATIENCE_SECONDS) as connection,
            ):
                await action(connection)
        except (DatabaseUnavailable, TimeoutError) as trouble:
            self.healthy = False
            raise BusUnavailable(f"PostgreSQL as the event bus: {trouble}") from trouble
        self.healthy = True

    async def _opened(self) -> Pool:
        async with self._opening:
            if self._pool is None:
                self._pool = await open_pool(self._url, size=CONNECTIONS, hot=True, name="jobyard messages")
            return self._pool

    async def _listen(self, look: Callable[[], None]) -> None:
        """Call `look` for what is published. Whatever ends a connection, the poll goes on beside the next one."""

        async def until_lost() -> float:
            lost = asyncio.Event()

            def hear(*_: object) -> None:
                look()

            connection = await connected(self._url, timeout=CONNECT_SECONDS, server_settings=SESSION)
            try:
                connection.add_termination_listener(lambda _: lost.set())
                await connection.add_listener(messages.CHANNEL, hear)
                look()
                await lost.wait()
            finally:
                connection.terminate()
            raise BusUnavailable("the listener of messages was cut off")

        await Loop("message listener", until_lost, self._clock).run()


@dataclass(frozen=True, slots=True)
class PostgresDelivery:
    message: Message
    attempt: int
    _seq: int
    _subscriber: _Subscriber

    async def ack(self) -> None:
        await self._subscriber.ack(self)

    async def nack(self, delay_seconds: float = 0.0) -> None:
        await self._subscriber.give_again(self, delay_seconds)

    async def extend(self, seconds: float) -> None:
        await self._subscriber.extend(self, seconds)

    @property
    def place(self) -> tuple[int, int]:
        return self._seq, self.attempt


class _Subscriber:
    """Takes messages while there is room for them. A delivery makes room when it is acked or nacked; one that nobody has
    been given yet, also when its time is over."""

    def __init__(self, bus: PostgresBus, subscription: Subscription, in_flight: int, clock: Clock) -> None:
        self._bus = bus
        self._subscription = subscription
        self._in_flight = in_flight
        self._clock = clock
        self._open: set[tuple[int, int]] = set()
        self._waiting: deque[tuple[float, PostgresDelivery]] = deque()
        self._taken = asyncio.Event()
        self._look = asyncio.Event()
        self._acked: list[tuple[int, int]] = []
        self._acking = asyncio.Lock()

    def look(self) -> None:
        self._look.set()

    async def deliveries(self) -> AsyncIterator[PostgresDelivery]:
        while True:
            self._forget_late()
            while self._waiting:
                _, delivery = self._waiting.popleft()
                yield delivery
                self._forget_late()
            self._taken.clear()
            await self._taken.wait()

    def _forget_late(self) -> None:
        """What waited here for as long as a delivery may take is somebody else's by now."""
        while self._waiting and self._waiting[0][0] <= self._clock.now():
            _, late = self._waiting.popleft()
            self._over(late)

    async def step(self) -> float:
        """Of the loop: take what there is room for, then wait until there may be more."""
        self._look.clear()
        self._forget_late()
        room = self._in_flight - len(self._open)
        if room and await self._take(room):
            return 0.0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await self._look.wait()
        return 0.0

    async def _take(self, room: int) -> int:
        name, until = self._subscription.name, self._clock.now() + self._subscription.ack_seconds
        found: list[messages.Given] = []

        async def take(connection: Connection) -> None:
            given, set_aside = await messages.take(connection, name, room)
            found.extend(given)
            for message in set_aside:
                telemetry.warning(LogEvent.MESSAGE_SET_ASIDE, subscription=name, message=message.id)

        await self._bus.do(take)
        for given in found:
            delivery = PostgresDelivery(given.message, given.deliveries, given.seq, self)
            self._open.add(delivery.place)
            self._waiting.append((until, delivery))
        self._taken.set()
        return len(found)

    async def ack(self, delivery: PostgresDelivery) -> None:
        if delivery.place not in self._open:
            return
        self._acked.append(delivery.place)
        # Whoever comes while another's acks are on their way finds them gone, or sends all that came meanwhile.
        async with self._acking:
            batch, self._acked = self._acked, []
            if batch:
                await self._tell(lambda connection: messages.ack(connection, self._subscription.name, batch))
        self._over(delivery)

    async def give_again(self, delivery: PostgresDelivery, seconds: float) -> None:
        if delivery.place not in self._open:
            return
        await self._give_again(delivery.place, seconds)
        self._over(delivery)
        asyncio.get_running_loop().call_later(seconds, self.look)

    async def extend(self, delivery: PostgresDelivery, seconds: float) -> None:
        if delivery.place not in self._open:
            return
        await self._give_again(delivery.place, seconds)

    async def hand_back(self) -> None:
        """What is open goes to others at once."""
        for place in list(self._open):
            await self._give_again(place, 0.0)

    async def _give_again(self, place: tuple[int, int], seconds: float) -> None:
        name = self._subscription.name
        await self._tell(lambda connection: messages.give_again(connection, name, *place, seconds))

    async def _tell(self, action: Callable[[Connection], Awaitable[None]]) -> None:
        with contextlib.suppress(BusUnavailable):  # then its time ends, and the message comes again
            await self._bus.do(action)

    def _over(self, delivery: PostgresDelivery) -> None:
        self._open.discard(delivery.place)
        self.look()
