"""What attempts say while they run, written in a batch once a second; and what they are told: that somebody wants them to
end. A job that says nothing and is over within the second costs nothing of all this."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from uuid import UUID

from jobyard import telemetry
from jobyard.loop import backoff, end_if_cancelled
from jobyard.ports import Clock
from jobyard.store import dispatch
from jobyard.store.database import Pool
from jobyard.store.dispatch import Claimed, Ending, LineSaid, ProgressSaid
from jobyard.store.intake import POISON
from jobyard.telemetry import LogEvent, metrics
from jobyard.worker.link import LogLine, Progress
from jobyard.worker.slots import Running

REPORT_SECONDS = 1.0
OLD_ENOUGH_SECONDS = 0.5
"""Attempts younger than this are not asked after: most are over before anybody could want to cancel them."""

MAX_LINES = 1000
LINES_A_STATEMENT = 1000

Attempts = Mapping[int, Running]


@dataclass(slots=True)
class _Said:
    """What one attempt has said, and nobody has written yet. `count`: of its lines so far."""

    claimed: Claimed
    progress: Progress | None = None
    lines: list[tuple[int, LogLine]] = field(default_factory=list[tuple[int, LogLine]])
    count: int = 0

    @property
    def unwritten(self) -> bool:
        return self.progress is not None or bool(self.lines)


class Reports:
    """`running`: the attempts by lease. `on_cancel`, `on_lost`: what to do with one that is to end, or whose lease is
    lost. `on_end`: takes each ending once all that its attempt said is written."""

    def __init__(
        self,
        pool: Pool,
        clock: Clock,
        running: Attempts,
        on_cancel: Callable[[Running], None],
        on_lost: Callable[[Running], None],
        on_end: Callable[[Ending], None],
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._running = running
        self._on_cancel = on_cancel
        self._on_lost = on_lost
        self._on_end = on_end
        self._saying = threading.Lock()
        self._said: dict[int, _Said] = {}
        self._held: list[Ending] = []
        self._must_write = asyncio.Event()
        self._all_written = asyncio.Event()
        self._all_written.set()
        self.failures = 0

    def hear(self, claimed: Claimed, told: Progress | LogLine) -> None:
        """From any thread. What an attempt says after its end is dropped."""
        if claimed.lease not in self._running:
            return
        with self._saying:
            said = self._said.setdefault(claimed.lease, _Said(claimed))
            if isinstance(told, Progress):
                said.progress = told
                return
            said.count += 1
            if said.count <= MAX_LINES:
                said.lines.append((said.count, told))
            elif said.count == MAX_LINES + 1:
                said.lines.append(
                    (
                        said.count,
                        LogLine(told.at, "warning", f"more than {MAX_LINES} lines: no more are kept"),
                    )
                )

    def ended(self, ending: Ending) -> None:
        """It goes on once what its attempt said is written: after that nothing can be, for the lease is gone."""
        said = self._said.get(ending.lease)
        if said is None or not said.unwritten:
            self._said.pop(ending.lease, None)
            self._on_end(ending)
            return
        self._held.append(ending)
        self._all_written.clear()
        self._must_write.set()

    async def flushed(self) -> None:
        """Wait until every ending has gone on."""
        await self._all_written.wait()

    async def run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPORT_SECONDS):
                    await self._must_write.wait()
            try:
                await self._step()
                self.failures = 0
                metrics.loop_succeeded("reports")
            except Exception as trouble:
                # Whatever it was, waiting and trying again is the cure.
                end_if_cancelled()
                await self._back_off(trouble)

    async def _back_off(self, trouble: Exception) -> None:
        self.failures += 1
        metrics.loop_failed("reports")
        if self.failures == 1:
            error = f"{type(trouble).__name__}: {trouble}"
            telemetry.warning(LogEvent.LOOP_FAILED, loop="reports", error=error)
        await self._clock.sleep(backoff(self.failures))

    async def _step(self) -> None:
        self._must_write.clear()
        if self._said:
            await self._write()
        await self._ask_for_cancels()

    async def _ask_for_cancels(self) -> None:
        now = self._clock.now()
        asked = {
            (running.claimed.job, running.claimed.run): running
            for running in self._running.values()
            if not running.was_told_to_end and now - running.started >= OLD_ENOUGH_SECONDS
        }
        if not asked:
            return
        async with self._pool.acquire() as connection:
            found = await dispatch.cancel_requests(connection, list(asked))
        for one in found:
            running = asked[one]
            if self._running.get(running.claimed.lease) is running:
                self._on_cancel(running)

    # Writing

    async def _write(self) -> None:
        with self._saying:
            now, everyone = self._clock.now(), self._said.values()
            progress = [
                progress_said(said.claimed.job, said.claimed.lease, said.progress)
                for said in everyone
                if said.progress
            ]
            every_line = (
                line_said(said.claimed.job, said.claimed.lease, number, line, now)
                for said in everyone
                for number, line in said.lines
            )
            lines = list(islice(every_line, LINES_A_STATEMENT))
        lost = await self._put(progress, lines)
        self._forget(progress, lines)
        for lease in lost:
            if (running := self._running.get(lease)) is not None:
                self._on_lost(running)
        self._let_go()

    async def _put(self, progress: Sequence[ProgressSaid], lines: Sequence[LineSaid]) -> set[int]:
        """The leases that turned out to be lost."""
        held = set[int]()
        async with self._pool.acquire() as connection:
            try:
                if progress:
                    held |= await dispatch.put_progress(connection, progress)
                if lines:
                    held |= await dispatch.put_lines(connection, lines)
            except POISON as refusal:
                telemetry.error(LogEvent.REPORT_REFUSED, error=type(refusal).__name__)
                return set()
        return {each.lease for each in (*progress, *lines)} - held

    def _forget(self, progress: Sequence[ProgressSaid], lines: Sequence[LineSaid]) -> None:
        """What is written, and whoever is over and has nothing left to write."""
        with self._saying:
            for each in progress:
                said = self._said[each.lease]
                if said.progress is not None and progress_said(each.job, each.lease, said.progress) == each:
                    said.progress = None
            written = {(each.lease, each.line) for each in lines}
            for lease in {each.lease for each in lines}:
                said = self._said[lease]
                said.lines = [entry for entry in said.lines if (lease, entry[0]) not in written]

    def _let_go(self) -> None:
        """Pass on the endings whose attempts have nothing left to write."""
        waiting = [ending for ending in self._held if self._said[ending.lease].unwritten]
        ready = [ending for ending in self._held if not self._said[ending.lease].unwritten]
        self._held = waiting
        for ending in ready:
            del self._said[ending.lease]
            self._on_end(ending)
        still = self._running.keys() | {ending.lease for ending in waiting}
        for lease in self._said.keys() - still:
            del self._said[lease]
        if waiting:
            self._must_write.set()
        else:
            self._all_written.set()


def progress_said(job: UUID, lease: int, progress: Progress) -> ProgressSaid:
    return ProgressSaid(job, lease, progress.percent, progress.message)


def line_said(job: UUID, lease: int, number: int, line: LogLine, now: float) -> LineSaid:
    return LineSaid(job, lease, number, max(0.0, now - line.at), line.level, line.text)
