"""Takes what is pushed into the worker's inbox, and knows how each push is answered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from enum import IntEnum

from jobyard import telemetry
from jobyard.bus.pubsub_push import Pushed
from jobyard.domain.announcement import Announcement, NotAnAnnouncement
from jobyard.ports import Message
from jobyard.telemetry import LogEvent, metrics
from jobyard.worker.inbox import Inbox

CLAIM_SECONDS = 10.0
"""How long a push waits for its claim. After that Pub/Sub is to push it again; if it is claimed all the same, that one finds
nothing left."""


class Answer(IntEnum):
    """As Pub/Sub understands it: done with, or push it again."""

    DONE = 204
    AGAIN = 503


class _PushedDelivery:
    """`answer` is there once it is known what becomes of it."""

    def __init__(self, message: Message, attempt: int) -> None:
        self.message = message
        self.attempt = attempt
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    async def ack(self) -> None:
        self._is(Answer.DONE)

    async def nack(self, delay_seconds: float = 0.0) -> None:
        self._is(Answer.AGAIN)

    async def extend(self, seconds: float) -> None:
        """Nobody can: the subscription says how long a push may take."""

    def _is(self, answer: Answer) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)


class Receiver:
    """Stands where a worker listens else. `serve` runs until it is cancelled; `room`: how many attempts the worker could take
    now; with `ack_at_end` a push is answered when its attempt has ended."""

    def __init__(
        self,
        inbox: Inbox,
        room: Callable[[], int],
        serve: Callable[[Callable[[Pushed], Awaitable[Answer]]], Awaitable[None]],
        *,
        ack_at_end: bool,
    ) -> None:
        self._inbox = inbox
        self._room = room
        self._serve = serve
        self._ack_at_end = ack_at_end
        self._open: set[_PushedDelivery] = set()
        self.works = False

    def room_made(self) -> None:
        """Pub/Sub pushes again by itself what had no room."""

    async def run(self) -> None:
        self.works = True
        try:
            await self._serve(self.receive)
        finally:
            self.works = False

    async def leave(self) -> None:
        """What is not claimed is pushed again; what is, is answered as its attempt ends."""
        self.works = False
        for heard in self._inbox.forget():
            await heard.delivery.nack()

    async def receive(self, push: Pushed) -> Answer:
        """When it is known how the push is to be answered."""
        try:
            announcement = Announcement.decoded(push.message.body if push.message else b"")
        except NotAnAnnouncement:
            telemetry.warning(LogEvent.ANNOUNCEMENT_STRANGE, subscription=push.subscription, message=push.id)
            return Answer.DONE
        if not self.works or self._room() - len(self._inbox) <= 0 or push.message is None:
            return Answer.AGAIN
        metrics.HEARD.add()
        delivery = _PushedDelivery(push.message, push.attempt)
        self._inbox.put(announcement, delivery)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if self._ack_at_end else CLAIM_SECONDS):
                return await asyncio.shield(delivery.answer)
        return Answer.AGAIN
