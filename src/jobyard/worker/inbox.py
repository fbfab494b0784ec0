"""What a worker was told of over an event bus and has not claimed yet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from jobyard.domain.announcement import Announcement
from jobyard.ports import Delivery
from jobyard.store.dispatch import Claimed

LAST_ACKS_SECONDS = 0.5


class Heard(NamedTuple):
    announcement: Announcement
    delivery: Delivery


class Ears(Protocol):
    """Where announcements come from, into an inbox."""

    @property
    def works(self) -> bool:
        """Whether they arrive now, as far as one can tell."""
        ...

    def room_made(self) -> None:
        """There may be room for more."""
        ...

    async def run(self) -> None: ...

    async def leave(self) -> None:
        """The worker stops: what is not claimed is for others."""
        ...


class Inbox:
    """A delivery is acked when its job is claimed and that is committed, or when the job is gone; `ack_at_end`: not before
    the attempt has ended. `on_heard` is called with each that comes."""

    def __init__(self, on_heard: Callable[[], None], *, ack_at_end: bool = False) -> None:
        self._on_heard = on_heard
        self._ack_at_end = ack_at_end
        self._waiting: list[Heard] = []
        self._claimed: dict[UUID, Delivery] = {}
        self._acks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, announcement: Announcement, delivery: Delivery) -> None:
        self._waiting.append(Heard(announcement, delivery))
        self._on_heard()

    def take(self, limit: int, order: Callable[[Announcement], tuple[int, ...] | None]) -> list[Heard]:
        """Up to `limit`, the first by `order`; those without a place in it stay."""
        places = {id(heard): order(heard.announcement) for heard in self._waiting}
        able = [heard for heard in self._waiting if places[id(heard)] is not None]
        able.sort(key=lambda heard: places[id(heard)] or ())
        taken = able[:limit]
        gone = {id(heard) for heard in taken}
        self._waiting = [heard for heard in self._waiting if id(heard) not in gone]
        return taken

    def give_back(self, heard: Collection[Heard]) -> None:
        """Nothing is known of them: they are to be claimed once more."""
        self._waiting = [*heard, *self._waiting]

    def claimed(self, heard: Sequence[Heard], attempts: Collection[Claimed]) -> None:
        """Of these, so many were still there."""
        kept = {attempt.job for attempt in attempts} if self._ack_at_end else set[UUID]()
        over: list[Delivery] = []
        for announcement, delivery in heard:
            if announcement.job in kept and announcement.job not in self._claimed:
                self._claimed[announcement.job] = delivery
            else:
                over.append(delivery)
        if over:
            self._start(_ack_all(over))

    def ended(self, job: UUID) -> None:
        """The attempt is settled, or its lease is lost."""
        delivery = self._claimed.pop(job, None)
        if delivery is not None:
            self._start(delivery.ack())

    def forget(self) -> list[Heard]:
        """What waits is for others."""
        forgotten, self._waiting = self._waiting, []
        return forgotten

    async def acked(self) -> None:
        """Wait for the acks that are on their way, if they go at all."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_ACKS_SECONDS):
                while self._acks:
                    await asyncio.wait(self._acks)

    def _start(self, acks: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(acks, name="ack")
        self._acks.add(task)
        task.add_done_callback(self._acks.discard)


async def _ack_all(deliveries: Sequence[Delivery]) -> None:
    await asyncio.gather(*(delivery.ack() for delivery in deliveries))
