"""Promotes jobs whose time has come."""

from __future__ import annotations

from jobyard.store import upkeep
from jobyard.store.database import Pool

LONGEST_PAUSE_SECONDS = 0.25
"""A job scheduled meanwhile for sooner than the next one known waits at most this long."""

SHORTEST_PAUSE_SECONDS = 0.005
"""What is due already and was not promoted is in another's hands: asking again at once would only spin."""


class Due:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def step(self) -> float:
        async with self._pool.acquire() as connection:
            promoted = await upkeep.promote(connection)
            if promoted == upkeep.PROMOTE_ROWS:
                return 0.0
            until_next = await upkeep.seconds_until_due(connection)
        if until_next is None:
            return LONGEST_PAUSE_SECONDS
        return min(max(until_next, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
