"""Writes how attempts ended, in batches: whatever is finished when the connection is free."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence

from jobyard import telemetry
from jobyard.domain.job import LaneKey
from jobyard.domain.lifecycle import Cause, Change, Status
from jobyard.loop import backoff, end_if_cancelled
from jobyard.ports import Clock
from jobyard.store import dispatch
from jobyard.store.database import Pool
from jobyard.store.dispatch import Ending, Moved
from jobyard.store.intake import POISON
from jobyard.store.lanes import Lanes
from jobyard.telemetry import LogEvent, metrics
from jobyard.worker.pace import Pace

SETTLE_ROWS = 200
SETTLE_BYTES = 32 << 20
"""Of results in one statement: the server takes no message of 1 GB."""

Write = Callable[[Sequence[Ending]], Awaitable[Moved]]
"""Ends attempts and answers which jobs still held their lease."""


class Settler:
    """Takes endings from the attempts and sees each through to the database, or to the news that its lease is lost.

    `on_settled` is called once an ending, with whether it was written.
    """

    def __init__(
        self, pool: Pool, lanes: Lanes, clock: Clock, on_settled: Callable[[Ending, bool], None]
    ) -> None:
        self._pool = pool
        self._lanes = lanes
        self._clock = clock
        self._on_settled = on_settled
        self._finished: list[Ending] = []
        self._pace = Pace()
        self._reported: set[int] = set()
        self._some = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.failures = 0

    def add(self, ending: Ending) -> None:
        if ending.is_written:
            metrics.ended(ending.lane, ending.change.cause, [ending.ran])
            self._on_settled(ending, True)
            return
        self._finished.append(ending)
        self._some.set()
        self._idle.clear()

    async def flushed(self) -> None:
        """Wait until everything added has been seen through."""
        await self._idle.wait()

    async def run(self) -> None:
        while True:
            await self._some.wait()
            if len(self._finished) < SETTLE_ROWS // 2:
                await self._pace.wait_for_company(self._clock)
            batch = self._next_batch()
            try:
                await self._write(batch)
                self._pace.took(len(batch), self._clock.now())
                self.failures = 0
            except Exception as trouble:
                # Whatever it was, waiting and trying again is the cure: what a row itself can cause fails alone.
                end_if_cancelled()
                self._finished = [
                    ending for ending in batch if ending.lease not in self._reported
                ] + self._finished
                await self._back_off(trouble)
            self._reported.clear()
            if not self._finished:
                self._some.clear()
                self._idle.set()

    def _next_batch(self) -> list[Ending]:
        """At most SETTLE_ROWS, and no more bytes of results than SETTLE_BYTES, but one at least."""
        rows, size = 0, 0
        for ending in self._finished[:SETTLE_ROWS]:
            size += len(ending.change.result or "")
            if rows and size > SETTLE_BYTES:
                break
            rows += 1
        batch, self._finished = self._finished[:rows], self._finished[rows:]
        return batch

    async def _back_off(self, trouble: BaseException) -> None:
        self.failures += 1
        metrics.loop_failed("settle")
        if self.failures == 1:
            telemetry.warning(
                LogEvent.LOOP_FAILED, loop="settle", error=f"{type(trouble).__name__}: {trouble}"
            )
        await self._clock.sleep(backoff(self.failures))

    async def _write(self, batch: Sequence[Ending]) -> None:
        # Repeating a batch whose answer was lost is safe: what is settled already holds no lease any more.
        final = [ending for ending in batch if ending.change.status is not Status.PENDING]
        back = [ending for ending in batch if ending.change.status is Status.PENDING]
        if final:
            self._report(final, await self._halving(self._settle, final))
        if back:
            self._report(back, await self._halving(self._hand_back, back))

    async def _settle(self, endings: Sequence[Ending]) -> Moved:
        async with self._pool.acquire() as connection:
            return Moved(await dispatch.settle(connection, endings), set())

    async def _hand_back(self, endings: Sequence[Ending]) -> Moved:
        async with self._pool.acquire() as connection:
            return await dispatch.hand_back(connection, self._lanes, endings)

    async def _halving(self, write: Write, endings: Sequence[Ending]) -> Moved:
        """What PostgreSQL refuses to keep of an attempt fails its own job and no other."""
        try:
            return await write(endings)
        except POISON as refusal:
            if len(endings) == 1:
                return await self._settle([_refused(endings[0], refusal)])
            middle = len(endings) // 2
            first = await self._halving(write, endings[:middle])
            second = await self._halving(write, endings[middle:])
            return Moved(first.jobs | second.jobs, first.cancelled | second.cancelled)

    def _report(self, endings: Sequence[Ending], moved: Moved) -> None:
        ended: defaultdict[tuple[LaneKey, Cause], list[float | None]] = defaultdict(list)
        for ending in endings:
            held = ending.job in moved.jobs
            if held:
                cause = Cause.CANCELLED if ending.job in moved.cancelled else ending.change.cause
                ended[ending.lane, cause].append(ending.ran)
            else:
                _tell_loss(ending)
            self._reported.add(ending.lease)
            self._on_settled(ending, held)
        for (lane, cause), ran in ended.items():
            metrics.ended(lane, cause, ran)


def _tell_loss(ending: Ending) -> None:
    metrics.LEASES_LOST.add()
    job, lane = str(ending.job), ending.lane
    telemetry.warning(LogEvent.LEASE_LOST, job=job, lease=ending.lease, type=lane.type, queue=lane.queue)


def _refused(ending: Ending, refusal: Exception) -> Ending:
    # Its message may quote the result.
    error, lane = type(refusal).__name__, ending.lane
    telemetry.error(
        LogEvent.SETTLE_REFUSED, job=str(ending.job), type=lane.type, queue=lane.queue, error=error
    )
    kept = {"type": "InvalidResult", "message": "the database refused to keep the outcome of this attempt"}
    change = Change(
        Status.FAILED, Cause.NON_RETRYABLE, ending.change.attempt, ending.change.crashes, error=kept
    )
    return ending._replace(change=change)
