"""The seams where another implementation can stand: what wakes workers, and what tells and passes time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class WakeUp:
    """Work has become ready. `lanes`: where; empty means anywhere. `workers`: who should look; empty means all."""

    lanes: frozenset[int] = frozenset()
    workers: frozenset[int] = frozenset()


class EventBus(Protocol):
    """What carries wake-ups. Only a hint: polling finds every job, a lost message is a delay and never a loss."""

    def subscribe(self, on_wake: Callable[[WakeUp], None]) -> AbstractAsyncContextManager[None]:
        """Call `on_wake` for every wake-up while the context is open, and once after each reconnection."""
        ...

    @property
    def healthy(self) -> bool:
        """Whether wake-ups arrive now."""
        ...


class Clock(Protocol):
    """Elapsed time inside this process. What is due, and when, is for the database's clock to say."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    async def sleep(self, seconds: float) -> None: ...
