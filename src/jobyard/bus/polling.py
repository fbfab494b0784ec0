"""No wake-ups at all: for a worker whose way to the database carries none, as through a transaction pooler."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from jobyard.ports import WakeUp


class Polling:
    """Whoever subscribes finds everything by its own polling."""

    healthy = False

    @asynccontextmanager
    async def subscribe(self, on_wake: Callable[[WakeUp], None]) -> AsyncGenerator[None]:
        yield
