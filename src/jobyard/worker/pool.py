"""The worker: claims attempts over its lanes, runs them within its slots, settles them, and drains when told to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from jobyard import telemetry
from jobyard.loop import cancelled
from jobyard.ports import Clock, WakeUps
from jobyard.store import dispatch
from jobyard.store.database import Pool
from jobyard.store.dispatch import Ending
from jobyard.store.lanes import Lanes
from jobyard.telemetry import LogEvent, metrics
from jobyard.worker.children import Children
from jobyard.worker.claimer import Claimer, Listen
from jobyard.worker.handlers import Handlers
from jobyard.worker.heartbeat import Heartbeat
from jobyard.worker.link import HandlerDatabase
from jobyard.worker.reports import Reports
from jobyard.worker.runner import Runner
from jobyard.worker.settler import Settler
from jobyard.worker.slots import AHEAD_SECONDS, Ended, Running

EXIT_STUCK = 70
"""The worker drained itself because as many threads as it has slots never returned: its supervisor starts it anew."""

LET_GO_SECONDS = 0.2
LAST_WRITES_SECONDS = 0.7
"""Of a drain: how long handlers that were cancelled, and then the last writes may take (these have what is left of the
grace too). With the grace of 8 s they end it within 9 s."""

HEARSAY = frozenset({"listener", "announcements"})
"""Parts that only shorten a wait."""

COMMAND_SECONDS = 10.0
"""What a statement of a worker may take before it is tried again: a database that froze must not hold it for long."""

CONNECTIONS = 2
"""Of the pool: one claims while the other settles. The heartbeat and the listener have their own."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    concurrency: int
    lease_seconds: float
    grace_seconds: float
    max_result_bytes: int
    ack_at_end: bool = False
    """An announcement is acked when its attempt has ended, not when it is claimed: where no CPU is given between requests."""


class Worker:
    """Runs until `stop` is called, then drains and returns. The pool is its own, and ends with it."""

    def __init__(
        self,
        pool: Pool,
        wakeups: WakeUps,
        clock: Clock,
        handlers: Handlers,
        options: WorkerOptions,
        heartbeat: Callable[[Callable[[int], None]], Heartbeat],
        children: Children | None = None,
        database: HandlerDatabase | None = None,
        listen: Listen | None = None,
    ) -> None:
        self._pool = pool
        self._wakeups = wakeups
        self._clock = clock
        self._options = options
        lanes = Lanes()
        self._settler = Settler(pool, lanes, clock, self._settled)
        self._runner = Runner(
            handlers,
            options.concurrency,
            options.max_result_bytes,
            clock,
            self._ended,
            self._room_made,
            children,
            database,
            lambda claimed, told: self._reports.hear(claimed, told),
        )
        self._reports = Reports(
            pool, clock, self._runner.slots.running, self._cancelled, self._lost, self._settler.add
        )
        self._claimer = Claimer(
            pool,
            clock,
            lanes,
            self._runner,
            handlers.types(),
            options.lease_seconds,
            heartbeat,
            listen,
            ack_at_end=options.ack_at_end,
        )
        self._stuck = False

    @property
    def id(self) -> int:
        return self._claimer.id

    @property
    def claim_failures(self) -> int:
        """In a row."""
        return self._claimer.failures

    @property
    def ready(self) -> bool:
        """Whether it can claim, settle and report now, and keeps its leases. It needs to hear of nothing: it polls."""
        return all(works for part, works in self.parts.items() if part not in HEARSAY)

    @property
    def parts(self) -> dict[str, bool]:
        """Whether each of its loops works now."""
        return {
            "claim": self._claimer.can_claim,
            "settle": not self._settler.failures,
            "reports": not self._reports.failures,
            "heartbeat": self._claimer.beats,
            **self._hearsay,
        }

    @property
    def _hearsay(self) -> dict[str, bool]:
        ears = self._claimer.ears
        return {"listener": self._wakeups.healthy} if ears is None else {"announcements": ears.works}

    @property
    def claimed_ahead(self) -> int:
        """How many attempts it holds that wait for a slot."""
        return len(self._runner.slots.waiting)

    @property
    def must_exit(self) -> bool:
        """Whether handlers are left that a time limit or the drain took their attempt from, and that go on."""
        return self._runner.handlers_at_work

    @property
    def exit_code(self) -> int:
        return EXIT_STUCK if self._stuck else 0

    def show(self) -> None:
        """As metrics: what it holds, and whether it is woken."""
        self._runner.show()
        metrics.LISTENING.set(all(self._hearsay.values()))

    def stop(self) -> None:
        """Claim nothing more, let what runs end within the grace, hand the rest back."""
        self._claimer.stop()

    async def run(self) -> None:
        ears = self._claimer.ears
        async with self._wakeups.subscribe(self._claimer.woken):
            listening = asyncio.create_task(ears.run() if ears else self._claimer.stopped(), name="hear")
            settling = asyncio.create_task(self._settler.run(), name="settle")
            deadlines = asyncio.create_task(self._runner.enforce_deadlines(), name="deadlines")
            claiming = asyncio.create_task(self._claimer.run(), name="claim")
            freeing = asyncio.create_task(self._free_what_waits(), name="free")
            reporting = asyncio.create_task(self._reports.run(), name="reports")
            stopping = asyncio.create_task(self._claimer.stopped(), name="stop")
            try:
                done, _ = await asyncio.wait(
                    {settling, deadlines, claiming, freeing, reporting, stopping, listening},
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done - {stopping}:
                    task.result()
                await self._drain(claiming)
            finally:
                # Connections first: a task that waits for a frozen database would not hear that it is cancelled.
                self._pool.terminate()
                for task in (claiming, settling, deadlines, freeing, reporting, stopping, listening):
                    await cancelled(task)
                self._claimer.close()
                await self._runner.close()

    async def _free_what_waits(self) -> None:
        """What was claimed ahead and did not start in time, because the attempts before it turned slow, is handed back:
        another worker may be idle, and its own time is running out."""
        while True:
            await self._clock.sleep(AHEAD_SECONDS / 2)
            self._runner.release_waiting(AHEAD_SECONDS)

    async def _drain(self, claiming: asyncio.Task[None]) -> None:
        running = self._runner.slots.running
        telemetry.info(LogEvent.WORKER_DRAINING, running=len(running))
        grace = self._options.grace_seconds
        over_at = self._clock.now() + grace + LET_GO_SECONDS + LAST_WRITES_SECONDS
        leaving = asyncio.create_task(self._claimer.hear_no_more(claiming), name="leave")
        self._runner.release_waiting()
        if not await self._runner.all_over(grace):
            telemetry.warning(LogEvent.ATTEMPTS_RELEASED, attempts=len(running), why="the grace is over")
            self._runner.end_all(Ended.BY_RELEASE)
            await self._runner.all_over(LET_GO_SECONDS)
            self._runner.abandon_all()
        writing = asyncio.create_task(self._write_the_last(claiming), name="last writes")
        await asyncio.wait([writing, leaving], timeout=over_at - self._clock.now())
        writing.cancel()
        leaving.cancel()
        telemetry.info(LogEvent.WORKER_STOPPED, worker=self.id)

    async def _write_the_last(self, claiming: asyncio.Task[None]) -> None:
        # A claim on its way must be heard out: what it brings is held, and has to be handed back.
        await asyncio.wait([claiming])
        with contextlib.suppress(Exception):
            await self._reports.flushed()
            await self._settler.flushed()
            await self._claimer.acked()
            async with self._pool.acquire() as connection:
                await dispatch.stop_worker(connection, self.id)

    # What its parts tell the worker

    def _room_made(self) -> None:
        self._claimer.room_made()
        if self._runner.stuck_threads >= self._options.concurrency and not self._stuck:
            self._stuck = True
            telemetry.error(LogEvent.WORKER_STUCK, threads=self._runner.stuck_threads)
            self.stop()

    def _ended(self, ending: Ending) -> None:
        self._reports.ended(ending)

    def _cancelled(self, running: Running) -> None:
        self._runner.cancel(running, Ended.BY_CANCEL)

    def _lost(self, running: Running) -> None:
        """Somebody has taken this one attempt back."""
        claimed, lane = running.claimed, running.lane
        telemetry.warning(
            LogEvent.LEASE_LOST,
            job=str(claimed.job),
            lease=claimed.lease,
            type=claimed.type,
            queue=claimed.queue,
        )
        self._claimer.let_go(claimed.job, claimed.lease, lane.suspect)
        self._runner.cancel(running, Ended.BY_LEASE_LOSS)

    def _settled(self, ending: Ending, written: bool) -> None:
        self._claimer.let_go(ending.job, ending.lease, ending.lane.suspect)
