"""One subscriber of Google Pub/Sub: has one stream open for as many messages as it may hold, gives them out one by one, and
keeps the time of each itself."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from jobyard import telemetry
from jobyard.bus import pubsub_wire as wire
from jobyard.bus.pubsub_connection import Connection, troubles
from jobyard.bus.pubsub_stream import Stream
from jobyard.bus.pubsub_words import LONGEST_LEASE_SECONDS, Doing, Words
from jobyard.ports import BusUnavailable, Clock, Message, Subscription
from jobyard.telemetry import LogEvent

if TYPE_CHECKING:
    from google.pubsub_v1 import types

SPARE_SECONDS = 5.0
"""How much longer than ours a lease is there: what is over here is given to others by us, and not behind our back."""

FIRST_LEASE_SECONDS = 10
"""The least there is: after so long, what was lost on the way to us comes again. What takes longer is extended."""

REOPEN_SECONDS = 0.05


class _Bus(Doing, Protocol):
    names: wire.Names
    healthy: bool

    async def connected(self) -> Connection: ...
    async def publish_sealed(self, topic: str, batch: Sequence[types.PubsubMessage]) -> None: ...
    def unavailable(self, trouble: Exception) -> BusUnavailable: ...


class PubsubDelivery:
    def __init__(
        self,
        message: Message,
        attempt: int,
        ack_id: str,
        until: float,
        leased_until: float,
        subscriber: Subscriber,
    ) -> None:
        self.message = message
        self.attempt = attempt
        self.ack_id = ack_id
        self.until = until
        """After this time it is somebody else's, or comes again if it was put off."""
        self.leased_until = leased_until
        """As the service was told, by our clock."""
        self._subscriber = subscriber

    @property
    def turn(self) -> float:
        """When something is to be done about it."""
        return min(self.until, self.leased_until - SPARE_SECONDS)

    async def ack(self) -> None:
        await self._subscriber.ack(self)

    async def nack(self, delay_seconds: float = 0.0) -> None:
        await self._subscriber.give_again(self, delay_seconds)

    async def extend(self, seconds: float) -> None:
        await self._subscriber.extend(self, seconds)


class _Acks:
    """One request of them, and who waits for it."""

    def __init__(self) -> None:
        self.deliveries: list[PubsubDelivery] = []
        self.sent = asyncio.Event()

    def in_time(self, clock: Clock) -> Callable[[], list[str]]:
        return lambda: [it.ack_id for it in self.deliveries if clock.now() < it.until]


class Subscriber:
    """`_waiting`: not given out yet. `_open`: given out and not answered; of these `_late` are somebody else's by now and
    keep their room all the same. `_put_off`: handed back with a delay that is not over, and held meanwhile. `_counted`: what
    the service takes for outstanding on the stream of now."""

    def __init__(self, bus: _Bus, subscription: Subscription, in_flight: int, clock: Clock) -> None:
        self._bus = bus
        self._subscription = subscription
        self._name = bus.names.subscription(subscription)
        self._words = Words(bus, self._name)
        self._in_flight = in_flight
        self._clock = clock
        self._ack_seconds: float | None = None
        self._waiting: deque[PubsubDelivery] = deque()
        self._open: set[PubsubDelivery] = set()
        self._late: set[PubsubDelivery] = set()
        self._put_off: set[PubsubDelivery] = set()
        self._busy: dict[str, PubsubDelivery] = {}
        self._counted: set[PubsubDelivery] = set()
        self._stream: Stream | None = None
        self._leaving = False
        self._taken = asyncio.Event()
        self._look = asyncio.Event()
        self._nudge = asyncio.Event()
        self._next_turn = math.inf
        self._acks = _Acks()
        self._sending: asyncio.Task[None] | None = None
        self._aside: set[asyncio.Task[None]] = set()

    # Giving out

    async def deliveries(self) -> AsyncGenerator[PubsubDelivery]:
        while True:
            while (delivery := self._next()) is not None:
                yield delivery
            self._taken.clear()
            await self._taken.wait()

    def _next(self) -> PubsubDelivery | None:
        """The first whose time is not over and whose key nobody works on."""
        if len(self._open) >= self._in_flight:
            return None
        now = self._clock.now()
        for delivery in self._waiting:
            key = delivery.message.key
            if delivery.until > now and key not in self._busy:
                self._waiting.remove(delivery)
                self._open.add(delivery)
                if key:
                    self._busy[key] = delivery
                return delivery
        return None

    # Asking and hearing

    async def step(self) -> float:
        """Of a loop: one stream, from its beginning to its end."""
        self._look.clear()
        limit = self._room_of_a_stream
        if limit <= 0 or self._leaving:
            await self._look.wait()
            return 0.0
        if self._ack_seconds is None:
            self._ack_seconds = await self._words.terms(self._subscription.ack_seconds)
        try:
            connection = await self._bus.connected()
            stream = self._stream = Stream(self._name, limit, FIRST_LEASE_SECONDS)
            self._counted.clear()
            await stream.read(connection, self._hear)
        except (*troubles(), TimeoutError) as trouble:
            raise self._bus.unavailable(trouble) from trouble
        finally:
            self._stream = None
        return 0.0 if stream.is_to_end else REOPEN_SECONDS

    @property
    def _room_of_a_stream(self) -> int:
        return self._in_flight - len(self._late)

    def _hear(self, received: Iterable[types.ReceivedMessage]) -> None:
        self._bus.healthy = True
        now = self._clock.now()
        for found in received:
            try:
                message = wire.message_of(found.message)
            except wire.NotOurs:
                self._set_aside_soon(found, "")
                continue
            if found.delivery_attempt > self._subscription.max_deliveries:
                self._set_aside_soon(found, message.id)
                continue
            assert self._ack_seconds is not None
            delivery = PubsubDelivery(
                message,
                found.delivery_attempt,
                found.ack_id,
                now + self._ack_seconds,
                now + FIRST_LEASE_SECONDS,
                self,
            )
            self._waiting.append(delivery)
            self._counted.add(delivery)
            self._watch_for(delivery)
        self._taken.set()

    def _fit(self) -> None:
        """End the stream where it is too small: what the service takes for outstanding is answered here."""
        self._taken.set()
        self._look.set()
        stream = self._stream
        if stream is None or stream.limit > len(self._counted):
            return
        if len(self._open) + len(self._waiting) < self._in_flight:
            stream.end()

    # Setting aside

    def _set_aside_soon(self, found: types.ReceivedMessage, message: str) -> None:
        task = asyncio.create_task(self._set_aside(found, message), name="set a message aside")
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    async def _set_aside(self, found: types.ReceivedMessage, message: str) -> None:
        """First the copy is safe, then the message goes. Whoever dies between the two leaves two copies."""
        from google.pubsub_v1 import types

        copy = types.PubsubMessage(
            data=found.message.data,
            attributes=found.message.attributes,
            ordering_key=found.message.ordering_key,
        )
        copy.attributes[wire.SOURCE] = self._name.rpartition("/")[2]
        copy.attributes[wire.DELIVERIES] = str(max(0, found.delivery_attempt - 1))
        try:
            await self._bus.publish_sealed(self._bus.names.set_aside_topic, [copy])
        except BusUnavailable:
            await self._words.lease([found.ack_id], 0)
            return
        await self._words.ack(lambda: [found.ack_id])
        telemetry.warning(LogEvent.MESSAGE_SET_ASIDE, subscription=self._subscription.name, message=message)

    # What becomes of a delivery

    async def ack(self, delivery: PubsubDelivery) -> None:
        if not self._is_ours(delivery):
            await self._end_late(delivery)
            return
        batch = self._acks
        batch.deliveries.append(delivery)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_acks(), name="send acks")
        await batch.sent.wait()

    async def _send_acks(self) -> None:
        """All that came while those before were on their way, until no more come."""
        try:
            while self._acks.deliveries:
                batch, self._acks = self._acks, _Acks()
                await self._words.ack(batch.in_time(self._clock))
                for delivery in batch.deliveries:
                    self._forget(delivery)
                self._counted.difference_update(batch.deliveries)
                batch.sent.set()
                self._fit()
        finally:
            self._sending = None

    async def give_again(self, delivery: PubsubDelivery, seconds: float) -> None:
        if not self._is_ours(delivery):
            await self._end_late(delivery)
        elif seconds > 0:
            self._forget(delivery)
            delivery.until = self._clock.now() + seconds
            self._put_off.add(delivery)
            await self._lease([delivery])
            self._fit()
        else:
            await self._give_back([delivery])
            self._over(delivery)

    async def extend(self, delivery: PubsubDelivery, seconds: float) -> None:
        if self._is_ours(delivery):
            delivery.until = self._clock.now() + seconds
            await self._lease([delivery])

    def _is_ours(self, delivery: PubsubDelivery) -> bool:
        return delivery in self._open and delivery not in self._late and self._clock.now() < delivery.until

    async def _end_late(self, delivery: PubsubDelivery) -> None:
        """Nothing is said for it but, where nobody has noticed yet, that its time is over."""
        if delivery in self._open and delivery not in self._late:
            await self._give_back([delivery])
        self._over(delivery)

    def _over(self, delivery: PubsubDelivery) -> None:
        self._forget(delivery)
        self._counted.discard(delivery)
        self._fit()

    def _forget(self, delivery: PubsubDelivery) -> None:
        self._open.discard(delivery)
        self._late.discard(delivery)
        self._free_key(delivery)

    def _free_key(self, delivery: PubsubDelivery) -> None:
        if self._busy.get(delivery.message.key) is delivery:
            del self._busy[delivery.message.key]

    async def _give_back(self, deliveries: Sequence[PubsubDelivery]) -> None:
        """To whoever comes first, with what follows here in their keys: it comes after them again."""
        keys = {it.message.key for it in deliveries if it.message.key}
        following = [it for it in self._waiting if it.message.key in keys]
        for delivery in following:
            self._waiting.remove(delivery)
        every = [*deliveries, *following]
        await self._words.lease([it.ack_id for it in every], 0)
        self._counted.difference_update(every)
        self._fit()

    # The time of deliveries

    async def watch(self) -> float:
        """Of a loop: do what is due, then wait until something is."""
        self._nudge.clear()
        await self._do_what_is_due()
        turns = [it.turn for it in self._held()]
        self._next_turn = min(turns, default=math.inf)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(
                None if self._next_turn == math.inf else max(0.0, self._next_turn - self._clock.now())
            ):
                await self._nudge.wait()
        return 0.0

    def _held(self) -> list[PubsubDelivery]:
        return [*(self._open - self._late), *self._put_off, *self._waiting]

    def _watch_for(self, delivery: PubsubDelivery) -> None:
        if delivery.turn < self._next_turn:
            self._nudge.set()

    async def _do_what_is_due(self) -> None:
        now = self._clock.now()
        due = [it for it in self._held() if it.turn <= now]
        over = [it for it in due if it.until <= now]
        late = [it for it in over if it in self._open]
        for delivery in over:
            self._put_off.discard(delivery)
            if delivery in self._waiting:
                self._waiting.remove(delivery)
        if late:
            self._late.update(late)
            for delivery in late:
                self._free_key(delivery)
            await self._shrink()
        if over:
            await self._give_back(over)
        if still := [it for it in due if it.until > now]:
            await self._lease(still)

    async def _shrink(self) -> None:
        """A late one keeps its room here and not there, so the stream would be sent one more in its place."""
        if (stream := self._stream) is not None and stream.limit > self._room_of_a_stream:
            stream.end()
            await stream.over.wait()

    async def _lease(self, deliveries: Sequence[PubsubDelivery]) -> None:
        """For as long as they are ours, or as can be said at once."""
        now = self._clock.now()
        told: dict[int, list[str]] = {}
        for delivery in deliveries:
            seconds = _lease(delivery.until - now)
            told.setdefault(seconds, []).append(delivery.ack_id)
            delivery.leased_until = now + seconds
            self._watch_for(delivery)
        for seconds, ack_ids in told.items():
            await self._words.lease(ack_ids, seconds)

    # At the end

    async def leave(self) -> None:
        """No more comes; what is on its way is heard still."""
        self._leaving = True
        if (stream := self._stream) is not None:
            stream.end()
            await stream.over.wait()

    async def hand_back(self) -> None:
        """What is open goes to others at once, and what was put off after its time."""
        said = [*self._aside, self._sending] if self._sending else self._aside
        await asyncio.gather(*said, return_exceptions=True)
        told: dict[int, list[str]] = {}
        for delivery in self._put_off:
            seconds = math.ceil(max(0.0, delivery.until - self._clock.now()))
            told.setdefault(min(seconds, LONGEST_LEASE_SECONDS), []).append(delivery.ack_id)
        for delivery in [*(it for it in self._open if self._is_ours(it)), *self._waiting]:
            told.setdefault(0, []).append(delivery.ack_id)
        await asyncio.gather(*(self._words.lease(ack_ids, seconds) for seconds, ack_ids in told.items()))
        self._open.clear()


def _lease(seconds: float) -> int:
    return wire.within(wire.ACK_SECONDS, math.ceil(seconds + SPARE_SECONDS))
