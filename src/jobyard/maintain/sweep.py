"""Takes back the attempts of workers that stopped beating, and those past their deadline."""

from __future__ import annotations

from collections import Counter

from jobyard import telemetry
from jobyard.store import upkeep
from jobyard.store.database import Pool
from jobyard.store.lanes import Lanes
from jobyard.telemetry import LogEvent, metrics

SWEEP_SECONDS = 2.0


class Sweep:
    def __init__(self, pool: Pool, lanes: Lanes) -> None:
        self._pool = pool
        self._lanes = lanes

    async def step(self) -> float:
        async with self._pool.acquire() as connection:
            swept = await upkeep.sweep(connection, self._lanes)
        for (lane, cause), attempts in Counter(swept.ways).items():
            metrics.ended(lane, cause, [None] * attempts)
        metrics.EXPIRED_WORKERS.add(by=len(swept.workers))
        if swept.workers or swept.attempts:
            names = [name for _, name in swept.workers]
            causes = {cause.value: count for cause, count in swept.causes.items()}
            telemetry.warning(LogEvent.SWEPT, workers=names, attempts=causes)
        return 0.0 if swept.attempts == upkeep.SWEEP_ROWS else SWEEP_SECONDS
