"""Counts what waits and what happened, so that nobody else has to."""

from __future__ import annotations

from jobyard.store import sampling
from jobyard.store.database import Pool

SAMPLE_SECONDS = 10.0
"""How old the numbers of `/api/stats`, `/api/queues` and `/metrics` may be, of any number of maintainers."""


class Sampler:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def step(self) -> float:
        async with self._pool.acquire() as connection:
            await sampling.take_sample(connection, SAMPLE_SECONDS)
        return SAMPLE_SECONDS
