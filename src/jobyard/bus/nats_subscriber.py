"""One subscriber of NATS: asks for as many messages as it has room for, and gives them out one by one."""

# nats-py leaves the types of some parameters open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from jobyard import telemetry
from jobyard.bus import nats_wire as wire
from jobyard.loop import cancelled
from jobyard.ports import BusUnavailable, Clock, Message, Subscription
from jobyard.telemetry import LogEvent

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription as Inbox

ASK_SECONDS = 5.0
"""How long the server keeps a request for messages."""

ANSWER_SECONDS = 2.0
"""How much later its end must have been heard of."""

SURE_SHARE = 0.9
"""Of the time that a delivery has: its time began when the server sent it, which was before it was heard of here."""

TIME_IS_OVER = "408"
DONE, STILL_AT_IT, GIVE_UP = b"+ACK", b"+WPI", b"+TERM"


class _Bus(Protocol):
    async def do(self, action: Callable[[Client], Awaitable[object]]) -> None: ...


class NatsDelivery:
    def __init__(
        self,
        message: Message,
        attempt: int,
        reply: str,
        until: float,
        subscriber: Subscriber,
        place: int,
    ) -> None:
        self.message = message
        self.attempt = attempt
        self.reply = reply
        self.until = until
        """After this time it is somebody else's. The server takes the word of whoever had a message last week, so it is for
        us to say nothing."""
        self.keeping: asyncio.Task[None] | None = None
        self.place = place
        """In the stream: of every delivery of this message the same."""
        self._subscriber = subscriber

    async def ack(self) -> None:
        await self._subscriber.end(self, DONE)

    async def nack(self, delay_seconds: float = 0.0) -> None:
        await self._subscriber.end(self, _again(delay_seconds))

    async def extend(self, seconds: float) -> None:
        await self._subscriber.extend(self, seconds)


class Subscriber:
    def __init__(self, bus: _Bus, subscription: Subscription, in_flight: int, clock: Clock) -> None:
        self._bus = bus
        self._subscription = subscription
        self._in_flight = in_flight
        self._clock = clock
        self._ack_seconds = subscription.ack_seconds
        self._open: set[NatsDelivery] = set()
        self._waiting: deque[NatsDelivery] = deque()
        self._taken = asyncio.Event()
        self._look = asyncio.Event()
        self._latest: dict[int, NatsDelivery] = {}
        self._acked: list[str] = []
        self._acking = asyncio.Lock()
        self._inbox: Inbox | None = None
        self._asked = self._requests = 0
        self._asked_until = 0.0
        self._trouble: str | None = None

    def look(self) -> None:
        self._look.set()

    def ask_anew(self) -> None:
        """What was asked over a connection that is lost comes no more."""
        self._asked = 0
        self.look()

    async def deliveries(self) -> AsyncGenerator[NatsDelivery]:
        while True:
            self._forget_late()
            while self._waiting:
                yield self._waiting.popleft()
                self._forget_late()
            self._taken.clear()
            await self._taken.wait()

    def _forget_late(self) -> None:
        """What waited here for as long as a delivery may take is somebody else's by now."""
        while self._waiting and self._waiting[0].until <= self._clock.now():
            self._over(self._waiting.popleft())

    # Asking

    async def step(self) -> float:
        """Of the loop: ask for what there is room for, then wait until there may be more."""
        self._look.clear()
        self._forget_late()
        await self._bus.do(self._ask)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ASK_SECONDS):
                await self._look.wait()
        if self._trouble:
            trouble, self._trouble = self._trouble, None
            raise BusUnavailable(f"NATS gives no messages: {trouble}")
        return 0.0

    async def _ask(self, connection: Client) -> None:
        if self._inbox is None:
            self._inbox = await self._listen(connection)
        if self._asked_until < self._clock.now():
            self._asked = 0
        room = self._in_flight - len(self._open)
        if self._asked or not room:
            return
        self._requests += 1
        self._asked, self._asked_until = room, self._clock.now() + ASK_SECONDS + ANSWER_SECONDS
        stream, name = self._place
        await connection.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}",
            json.dumps({"batch": room, "expires": int(ASK_SECONDS * 1e9)}).encode(),
            reply=self._inbox.subject.replace("*", str(self._requests)),
        )

    async def _listen(self, connection: Client) -> Inbox:
        consumer = await connection.jsm().consumer_info(*self._place)
        self._ack_seconds = consumer.config.ack_wait or self._subscription.ack_seconds
        return await connection.subscribe(f"{connection.new_inbox()}.*", cb=self._hear, pending_bytes_limit=0)

    @property
    def _place(self) -> tuple[str, str]:
        return wire.stream_name(self._subscription.topic), wire.consumer_name(self._subscription.name)

    # Hearing

    async def _hear(self, found: Msg) -> None:
        if not found.reply:
            self._hear_of_the_end(found)
            return
        self._asked = max(0, self._asked - 1)
        if not self._asked:
            self.look()
        if len(self._open) >= self._in_flight:  # a request from before the connection was lost
            await self._say(found.reply, _again(0.0))
            return
        attempt = found.metadata.num_delivered
        try:
            message = wire.message_of(found.data, found.headers)
        except wire.NotOurs:
            await self._set_aside(found, "")
        else:
            if attempt > self._subscription.max_deliveries:
                await self._set_aside(found, message.id)
            else:
                place = found.metadata.sequence.stream
                if (earlier := self._latest.get(place)) is not None:
                    earlier.until = self._clock.now()
                delivery = NatsDelivery(message, attempt, found.reply, self._from_now(), self, place)
                self._latest[place] = delivery
                self._take(delivery)

    def _hear_of_the_end(self, said: Msg) -> None:
        """Of a request, with or without all its messages."""
        if not said.subject.endswith(f".{self._requests}"):
            return
        self._asked = 0
        headers = said.headers or {}
        if headers.get("Status") != TIME_IS_OVER:
            self._trouble = headers.get("Description") or f"status {headers.get('Status')}"
        self.look()

    def _take(self, delivery: NatsDelivery) -> None:
        self._open.add(delivery)
        self._waiting.append(delivery)
        self._taken.set()

    def _from_now(self) -> float:
        return self._clock.now() + SURE_SHARE * self._ack_seconds

    async def _set_aside(self, found: Msg, message: str) -> None:
        """First the copy is safe, then the message goes. Whoever dies between the two leaves it to be set aside again, and
        the stream knows the second copy by its id."""
        place = found.metadata.sequence.stream
        headers = {
            **(found.headers or {}),
            wire.ID_HEADER: f"{'.'.join(self._place)}.{place}",
            wire.DELIVERIES_HEADER: str(found.metadata.num_delivered - 1),
        }

        async def copy(connection: Client) -> None:
            subject = wire.set_aside_subject(self._subscription)
            await connection.jetstream().publish(subject, found.data, headers=headers)
            await connection.request(found.reply, GIVE_UP, timeout=ANSWER_SECONDS)

        with contextlib.suppress(BusUnavailable):  # then it comes again
            await self._bus.do(copy)
            telemetry.warning(
                LogEvent.MESSAGE_SET_ASIDE, subscription=self._subscription.name, message=message
            )

    # What becomes of a delivery

    async def end(self, delivery: NatsDelivery, word: bytes) -> None:
        if delivery not in self._open:
            return
        if delivery.keeping is not None:
            delivery.keeping.cancel()
        if self._clock.now() < delivery.until:
            await (self._ack(delivery.reply) if word is DONE else self._say(delivery.reply, word))
        self._over(delivery)

    async def _ack(self, reply: str) -> None:
        """Acks that come together share one answer: the server takes them in their order, so what it says of the last one
        it says of all."""
        self._acked.append(reply)
        async with self._acking:
            batch, self._acked = self._acked, []
            if not batch:
                return
            *others, last = batch

            async def send(connection: Client) -> None:
                for other in others:
                    await connection.publish(other, DONE)
                await connection.request(last, DONE, timeout=ANSWER_SECONDS)

            with contextlib.suppress(BusUnavailable):  # then their time ends, and the messages come again
                await self._bus.do(send)

    async def extend(self, delivery: NatsDelivery, seconds: float) -> None:
        if delivery not in self._open or self._clock.now() >= delivery.until:
            return
        if delivery.keeping is not None:
            await cancelled(delivery.keeping)
        delivery.until = self._clock.now() + seconds
        await self._say(delivery.reply, STILL_AT_IT)
        delivery.keeping = asyncio.create_task(self._keep(delivery), name="keep a message")

    async def _keep(self, delivery: NatsDelivery) -> None:
        """NATS extends by ack_seconds and by nothing else: say it as often as it takes, and end it in time."""
        while (left := delivery.until - self._clock.now()) > 0:
            await self._clock.sleep(min(left, self._ack_seconds / 3))
            await self._say(delivery.reply, STILL_AT_IT)
        await self._say(delivery.reply, _again(0.0))

    async def hand_back(self) -> None:
        """What is open goes to others at once, with what is still on its way here."""
        if self._inbox is not None:
            with contextlib.suppress(Exception):  # its connection is gone, and what was on its way with it
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._inbox.drain()
        await asyncio.gather(*(self.end(delivery, _again(0.0)) for delivery in list(self._open)))

    async def _say(self, reply: str, word: bytes) -> None:
        """Until the server has heard it."""
        with contextlib.suppress(BusUnavailable):  # then its time ends, and the message comes again
            await self._bus.do(lambda connection: connection.request(reply, word, timeout=ANSWER_SECONDS))

    def _over(self, delivery: NatsDelivery) -> None:
        self._open.discard(delivery)
        if self._latest.get(delivery.place) is delivery:
            del self._latest[delivery.place]
        self.look()


def _again(seconds: float) -> bytes:
    return b"-NAK " + json.dumps({"delay": int(seconds * 1e9)}).encode() if seconds else b"-NAK"
