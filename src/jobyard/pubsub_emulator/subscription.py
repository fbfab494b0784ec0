"""A subscription at work: its backlog, moved by the real time, and whoever waits for messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from google.pubsub_v1 import types

from jobyard.pubsub_emulator.backlog import Backlog, Bury, Lease, Message, Moment, Receiver
from jobyard.pubsub_emulator.configs import rules_of
from jobyard.pubsub_emulator.faults import Faults
from jobyard.pubsub_emulator.refusals import FailedPrecondition, NotFound

Clock = Callable[[], Moment]


class Subscription:
    def __init__(self, config: types.Subscription, bury: Bury, clock: Clock, faults: Faults) -> None:
        self.config = config
        self._backlog = Backlog(rules_of(config), bury)
        self._clock = clock
        self._faults = faults
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._is_deleted = False

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def counts_attempts(self) -> bool:
        """Only where there is a dead letter policy does the service tell how often it delivered."""
        return "dead_letter_policy" in self.config

    @property
    def push(self) -> types.PushConfig | None:
        """Where messages are pushed to, if they are."""
        pushes = self.config.push_config.push_endpoint and not (self._is_deleted or self.config.detached)
        return self.config.push_config if pushes else None

    def configure(self, config: types.Subscription) -> None:
        self.config = config
        self._backlog.rules = rules_of(config)
        self._ring()

    def add(self, message: Message) -> None:
        self._backlog.add(message)
        self._ring()

    def ack(self, ack_ids: Iterable[str]) -> None:
        kept = [ack_id for ack_id in ack_ids if not self._faults.strikes("lose_ack")]
        self._backlog.ack(kept, self._clock())
        self._ring()

    def extend(self, ack_ids: Iterable[str], seconds: float) -> None:
        self._backlog.extend(ack_ids, seconds, self._clock())
        self._ring()

    def take(self, limit: int, receiver: Receiver | None = None) -> list[Lease]:
        """What can be delivered now. Raises Refusal."""
        if self._is_deleted:
            raise NotFound(f"Resource not found (resource={self.name}).")
        if self.config.detached:
            raise FailedPrecondition(f"the subscription {self.name} is detached from its topic")
        leases = self._backlog.take(limit, self._clock(), receiver=receiver)
        for lease in leases:
            if self._faults.strikes("duplicate"):
                self._backlog.repeat(lease)
        self._set_timer()
        return leases

    async def next(self, limit: int, receiver: Receiver | None = None) -> list[Lease]:
        """What can be delivered, as soon as there is something. Raises Refusal."""
        while not (leases := self.take(limit, receiver)):
            await self._changed.wait()
        return leases

    def detach(self) -> None:
        """Its messages are gone, and no more will come."""
        self.config.detached = True
        self._backlog.clear()
        self._ring()

    def delete(self) -> None:
        self._is_deleted = True
        self._backlog.clear()
        self._ring()

    def _ring(self) -> None:
        """Whoever waits looks again; those who come later wait for the next time."""
        self._changed.set()
        self._changed = asyncio.Event()
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = None
        if (moment := self._backlog.next_change()) is not None:
            delay = max(0.0, moment - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self._pass_time)

    def _pass_time(self) -> None:
        self._backlog.pass_time(self._clock())
        self._ring()
