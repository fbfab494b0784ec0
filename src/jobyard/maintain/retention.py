"""Deletes what is older than its retention, in small batches that pause as long as they took."""

from __future__ import annotations

from jobyard import telemetry
from jobyard.ports import Clock
from jobyard.store import log_reader, messages, upkeep
from jobyard.store.database import Pool
from jobyard.telemetry import LogEvent, metrics

PAUSE_SECONDS = 60.0
DAY_SECONDS = 86400.0


class Retention:
    """`completed_days` and `failed_days`: how long a job is kept after its end. The log is kept as long as the
    longer of the two."""

    def __init__(self, pool: Pool, clock: Clock, completed_days: float, failed_days: float) -> None:
        self._pool = pool
        self._clock = clock
        self._completed_seconds = completed_days * DAY_SECONDS
        self._failed_seconds = failed_days * DAY_SECONDS

    async def step(self) -> float:
        started = self._clock.now()
        async with self._pool.acquire() as connection:
            jobs = await upkeep.delete_finished(connection, self._completed_seconds, self._failed_seconds)
            keys = await upkeep.delete_expired_keys(connection)
            events = await upkeep.delete_old_events(
                connection, max(self._completed_seconds, self._failed_seconds)
            )
            old_messages = await messages.delete_old(connection)
            ticks = await log_reader.delete_ticks(connection)
        if not (jobs or keys or events or old_messages or ticks == log_reader.TICKS_EXPIRED):
            return PAUSE_SECONDS
        metrics.DELETED.add(by=jobs)
        telemetry.info(
            LogEvent.DELETED, jobs=jobs, idempotency_keys=keys, events=events, messages=old_messages
        )
        return self._clock.now() - started
