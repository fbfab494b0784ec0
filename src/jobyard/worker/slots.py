"""The attempts a worker holds: claimed and waiting for a slot, running, and how fast they end."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from jobyard.store.dispatch import Claimed, Lane
from jobyard.worker.link import Committed

if TYPE_CHECKING:
    from jobyard.telemetry.spans import AttemptSpan

CLAIM_ROWS = 200
AHEAD_ROWS = 400
AHEAD_SECONDS = 1.0
"""Attempts are claimed ahead only if they would start within this time at the measured rate: a job must not wait in
one worker's hands while another is idle."""

RATE_WINDOW_SECONDS = 0.05


class Place(Enum):
    """Where an attempt runs."""

    LOOP = "loop"
    THREAD = "thread"
    CHILD = "child"


class Ended(Enum):
    """Why the worker itself ended an attempt."""

    BY_TIMEOUT = "timeout"
    BY_CANCEL = "cancel"
    BY_RELEASE = "release"
    BY_LEASE_LOSS = "lease loss"


@dataclass(slots=True, eq=False)
class Running:
    claimed: Claimed
    lane: Lane
    place: Place
    started: float = 0.0
    task: asyncio.Task[None] | None = None
    begun: bool = False
    ended: Ended | None = None
    over: bool = False
    committed: Committed | None = None
    span: AttemptSpan | None = None

    @property
    def was_told_to_end(self) -> bool:
        return self.ended is not None


class Waiting(NamedTuple):
    """Claimed ahead; `since` is when."""

    claimed: Claimed
    lane: Lane
    since: float


@dataclass(slots=True)
class Slots:
    """Bookkeeping only; it starts nothing."""

    concurrency: int
    waiting: deque[Waiting] = field(default_factory=deque["Waiting"])
    running: dict[int, Running] = field(default_factory=dict[int, Running])
    _rate: float = 0.0
    _ended: int = 0
    _since: float = 0.0

    def room(self, now: float) -> int:
        """How many attempts to claim now. A rate that nothing has confirmed for so long counts no more."""
        rate = self._rate if now - self._since <= AHEAD_SECONDS else 0.0
        ahead = min(AHEAD_ROWS, int(rate * AHEAD_SECONDS))
        room = self.concurrency - len(self.running) + ahead - len(self.waiting)
        # While enough is at hand, wait until a claim is worth its round trip.
        return 0 if self.waiting and room < ahead // 2 else min(CLAIM_ROWS, room)

    def next_to_start(self) -> Waiting | None:
        if self.waiting and len(self.running) < self.concurrency:
            return self.waiting.popleft()
        return None

    def count_ended(self, now: float) -> None:
        """An attempt ended. The rate is that of the last window; 0 until one is full."""
        self._ended += 1
        elapsed = now - self._since
        if elapsed > RATE_WINDOW_SECONDS:
            self._rate = self._ended / elapsed
            self._ended, self._since = 0, now

    @property
    def empty(self) -> bool:
        return not self.waiting and not self.running
