"""The worker: claims attempts over its lanes, runs them within its slots, settles them, and drains when told to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from jobyard import telemetry
from jobyard.domain import lifecycle
from jobyard.domain.errors import WorkerExpired
from jobyard.domain.lifecycle import SOLITARY
from jobyard.loop import backoff, cancelled, end_if_cancelled
from jobyard.ports import Clock, EventBus, WakeUp
from jobyard.store import dispatch
from jobyard.store.database import Pool
from jobyard.store.dispatch import Claimed, Ending, Lane
from jobyard.store.lanes import Lanes
from jobyard.telemetry import LogEvent, metrics
from jobyard.worker.children import Children
from jobyard.worker.handlers import Handlers
from jobyard.worker.heartbeat import Heartbeat
from jobyard.worker.lanebook import LaneBook
from jobyard.worker.link import HandlerDatabase
from jobyard.worker.pace import Pace
from jobyard.worker.reports import Reports
from jobyard.worker.runner import Runner
from jobyard.worker.settler import Settler
from jobyard.worker.slots import AHEAD_SECONDS, Ended, Running, Waiting

POLL_SECONDS = 1.0
LANES_SECONDS = 10.0
"""How often the lanes are read anew, beside the wake-up that every new lane brings."""

FULL_CLAIMS_UNTIL_BUSY = 2
EXIT_STUCK = 70
"""The worker drained itself because as many threads as it has slots never returned: its supervisor starts it anew."""

LET_GO_SECONDS = 0.2
LAST_WRITES_SECONDS = 0.7
"""Of a drain: how long handlers that were cancelled, and then the last writes may take (these have what is left of the
grace too). With the grace of 8 s they end it within 9 s."""

CONNECTIONS = 2
"""Of the pool: one claims while the other settles. The heartbeat and the listener have their own."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    concurrency: int
    lease_seconds: float
    grace_seconds: float
    max_result_bytes: int


class Worker:
    """Runs until `stop` is called, then drains and returns. The pool is its own, and ends with it."""

    def __init__(
        self,
        pool: Pool,
        bus: EventBus,
        clock: Clock,
        handlers: Handlers,
        options: WorkerOptions,
        heartbeat: Callable[[Callable[[int], None]], Heartbeat],
        children: Children | None = None,
        database: HandlerDatabase | None = None,
    ) -> None:
        self._pool = pool
        self._bus = bus
        self._clock = clock
        self._handlers = handlers
        self._options = options
        self._lanes = Lanes()
        self._book = LaneBook(clock.now)
        self._settler = Settler(pool, self._lanes, clock, self._settled)
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
        self._heartbeat = heartbeat(self._expired_in_thread)
        self._main_loop: asyncio.AbstractEventLoop | None = None
        self._id = 0
        self._idle = False
        self._full_claims = 0
        self._held: dict[UUID, int] = {}
        self._solitary_held = 0
        self._pace = Pace()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._stop = asyncio.Event()
        self._must_look_everywhere = True
        self._lanes_stale = True
        self._answer_lost = False
        self._stuck = False
        self._lanes_read_at = 0.0
        self._reconciled_at = 0.0
        self.claim_failures = 0

    @property
    def id(self) -> int:
        return self._id

    @property
    def ready(self) -> bool:
        """Whether it can claim and settle now."""
        return (
            self._id != 0
            and not self._stop.is_set()
            and not self.claim_failures
            and not self._settler.failures
        )

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
        metrics.LISTENING.set(self._bus.healthy)

    def stop(self) -> None:
        """Claim nothing more, let what runs end within the grace, hand the rest back."""
        self._stop.set()
        self._wake.set()
        self._room.set()

    async def run(self) -> None:
        self._main_loop = asyncio.get_running_loop()
        async with self._bus.subscribe(self._woken):
            settling = asyncio.create_task(self._settler.run(), name="settle")
            deadlines = asyncio.create_task(self._runner.enforce_deadlines(), name="deadlines")
            claiming = asyncio.create_task(self._claim_for_ever(), name="claim")
            freeing = asyncio.create_task(self._free_what_waits(), name="free")
            reporting = asyncio.create_task(self._reports.run(), name="reports")
            stopping = asyncio.create_task(self._stop.wait(), name="stop")
            try:
                done, _ = await asyncio.wait(
                    {settling, deadlines, claiming, freeing, reporting, stopping},
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done - {stopping}:
                    task.result()
                await self._drain(claiming)
            finally:
                # Connections first: a task that waits for a frozen database would not hear that it is cancelled.
                self._pool.terminate()
                for task in (claiming, settling, deadlines, freeing, reporting, stopping):
                    await cancelled(task)
                self._heartbeat.stop()
                await self._runner.close()

    async def _free_what_waits(self) -> None:
        """What was claimed ahead and did not start in time, because the attempts before it turned slow, is handed back:
        another worker may be idle, and its own time is running out."""
        while True:
            await self._clock.sleep(AHEAD_SECONDS / 2)
            self._release(self._runner.take_back_waiting(AHEAD_SECONDS))

    async def _drain(self, claiming: asyncio.Task[None]) -> None:
        running = self._runner.slots.running
        telemetry.info(LogEvent.WORKER_DRAINING, running=len(running))
        grace = self._options.grace_seconds
        over_at = self._clock.now() + grace + LET_GO_SECONDS + LAST_WRITES_SECONDS
        self._release(self._runner.take_back_waiting())
        if not await self._runner.all_over(grace):
            telemetry.warning(LogEvent.ATTEMPTS_RELEASED, attempts=len(running), why="the grace is over")
            self._runner.end_all(Ended.BY_RELEASE)
            await self._runner.all_over(LET_GO_SECONDS)
            self._runner.abandon_all()
        writing = asyncio.create_task(self._write_the_last(claiming), name="last writes")
        await asyncio.wait([writing], timeout=over_at - self._clock.now())
        writing.cancel()
        telemetry.info(LogEvent.WORKER_STOPPED, worker=self._id)

    async def _write_the_last(self, claiming: asyncio.Task[None]) -> None:
        # A claim on its way must be heard out: what it brings is held, and has to be handed back.
        await asyncio.wait([claiming])
        with contextlib.suppress(Exception):
            await self._reports.flushed()
            await self._settler.flushed()
            async with self._pool.acquire() as connection:
                await dispatch.stop_worker(connection, self._id)

    def _release(self, waiting: Sequence[Waiting]) -> None:
        for claimed, lane, _ in waiting:
            change = lifecycle.release(claimed.standing(lane.suspect))
            self._settler.add(Ending(claimed.job, claimed.lease, lane.key, change))

    # What others tell the worker

    def _woken(self, wake: WakeUp) -> None:
        if wake.workers and self._id not in wake.workers:
            return
        if not wake.lanes:
            self._look_everywhere()
        if not self._book.woken(wake.lanes):
            self._lanes_stale = True
        self._wake.set()

    def _room_made(self) -> None:
        self._room.set()
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
        self._let_go(claimed.job, claimed.lease, lane.suspect)
        self._runner.cancel(running, Ended.BY_LEASE_LOSS)

    def _settled(self, ending: Ending, written: bool) -> None:
        self._let_go(ending.job, ending.lease, ending.lane.suspect)

    def _let_go(self, job: UUID, lease: int, suspect: int) -> None:
        if self._held.get(job) == lease:
            del self._held[job]
            self._solitary_held -= suspect == SOLITARY

    def _expired_in_thread(self, worker: int) -> None:
        if self._main_loop is not None:
            self._main_loop.call_soon_threadsafe(self._expired, worker)

    def _expired(self, worker: int) -> None:
        """The row is gone and every lease with it: drop what is held, and claim again only under a new id."""
        if worker != self._id:
            return
        telemetry.warning(LogEvent.WORKER_EXPIRED, worker=worker, attempts=len(self._held))
        self._id = 0
        metrics.LEASES_LOST.add(by=len(self._runner.take_back_waiting()))
        self._runner.end_all(Ended.BY_LEASE_LOSS)
        self._held.clear()
        self._solitary_held = 0
        self._wake.set()
        self._room.set()

    # The claim loop

    async def _claim_for_ever(self) -> None:
        while not self._stop.is_set():
            try:
                await self._claim_or_wait()
                self.claim_failures = 0
            except WorkerExpired:
                self._expired(self._id)
            except Exception as trouble:
                # Whatever it was, waiting and trying again is the cure.
                end_if_cancelled()
                await self._back_off(trouble)

    async def _back_off(self, trouble: Exception) -> None:
        # Nothing is known of what was asked last: it may be done or not.
        self._answer_lost, self._idle = True, False
        self._look_everywhere()
        self.claim_failures += 1
        metrics.loop_failed("claim")
        if self.claim_failures == 1:
            error = f"{type(trouble).__name__}: {trouble}"
            telemetry.warning(LogEvent.LOOP_FAILED, loop="claim", error=error)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(backoff(self.claim_failures)):
                await self._stop.wait()

    def _look_everywhere(self) -> None:
        """The next claim is to find also what no wake-up told of."""
        self._must_look_everywhere = self._lanes_stale = True

    async def _claim_or_wait(self) -> None:
        await self._keep_up_with_the_database()
        self._room.clear()
        room = self._runner.slots.room(self._clock.now())
        if room <= 0:
            await self._room.wait()
            return
        self._wake.clear()
        everywhere, self._must_look_everywhere = self._must_look_everywhere, False
        found = await self._claim(room, everywhere=everywhere)
        self._pace.took(found, self._clock.now())
        if found >= room:
            await self._count_full_claim()
        elif not self._idle:
            # Say so first and look once more: whoever creates a job from now on knows to wake this worker.
            await self._say_idle(True)
            self._must_look_everywhere = True
        else:
            self._full_claims = 0
            await self._wait_for_work()
            await self._pace.wait_for_company(self._clock)

    async def _claim(self, room: int, *, everywhere: bool) -> int:
        """Claim up to `room` attempts and start them; how many there were."""
        found = 0
        if not self._solitary_held:
            lanes, hints = self._book.solitary(everywhere=everywhere)
            if lanes:
                found += await self._claim_from(lanes, hints, 1)
        for lanes, hints in self._book.groups(everywhere=everywhere, careful=self._idle):
            found += await self._claim_from(lanes, hints, room - found)
            if found >= room:
                break
        return found

    async def _claim_from(self, lanes: Sequence[int], hints: Sequence[int], limit: int) -> int:
        worker = self._id
        if limit <= 0 or not worker or self._stop.is_set():
            return 0
        async with self._pool.acquire() as connection:
            claimed = await dispatch.claim(
                connection, worker, lanes, hints, limit, self._options.lease_seconds
            )
        if worker != self._id:
            return 0  # it expired meanwhile: these leases are lost already
        self._book.saw(lanes, claimed, short=len(claimed) < limit)
        self._accept(claimed)
        return len(claimed)

    def _accept(self, claimed: list[Claimed]) -> None:
        turns = [(self._book.lane(attempt.lane), attempt) for attempt in claimed]
        metrics.waited(claimed)
        turns.sort(key=lambda turn: (-turn[0].priority, turn[1].lease))
        now = self._clock.now()
        for lane, attempt in turns:
            self._held[attempt.job] = attempt.lease
            self._solitary_held += lane.suspect == SOLITARY
            self._runner.accept(attempt, lane, now)
        if self._stop.is_set():
            self._release(self._runner.take_back_waiting())
        else:
            self._runner.start_waiting()

    async def _count_full_claim(self) -> None:
        self._full_claims += 1
        if self._idle and self._full_claims > FULL_CLAIMS_UNTIL_BUSY:
            # Busy: creates need not pay for waking it.
            await self._say_idle(False)
        # Let the attempts that were just started have their turn.
        await asyncio.sleep(0)

    async def _say_idle(self, idle: bool) -> None:
        async with self._pool.acquire() as connection:
            await dispatch.set_idle(connection, self._id, idle)
        self._idle = idle

    async def _wait_for_work(self) -> None:
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            self._look_everywhere()

    # Identity, lanes and lost answers

    async def _keep_up_with_the_database(self) -> None:
        now = self._clock.now()
        if self._id == 0:
            await self._take_new_id()
        if self._lanes_stale or now - self._lanes_read_at > LANES_SECONDS:
            await self._read_lanes(now)
        if self._answer_lost or now - self._reconciled_at > self._options.lease_seconds:
            await self._reconcile(now)

    async def _take_new_id(self) -> None:
        name, types, options = f"{socket.gethostname()}:{os.getpid()}", self._handlers.types(), self._options
        async with self._pool.acquire() as connection:
            self._id = await dispatch.start_worker(
                connection, name, types, options.concurrency, options.lease_seconds
            )
        self._idle = False
        if self._heartbeat.started:
            self._heartbeat.beat_for(self._id)
        else:
            self._heartbeat.start(self._id)
        telemetry.info(LogEvent.WORKER_STARTED, worker=self._id, name=name, types=types)

    async def _read_lanes(self, now: float) -> None:
        self._lanes_stale = False
        async with self._pool.acquire() as connection:
            lanes: list[Lane] = await dispatch.lanes_of(connection, self._handlers.types())
        self._book.learn(lanes)
        self._lanes_read_at = now

    async def _reconcile(self, now: float) -> None:
        """Hand back what the database believes this worker holds and the worker never heard of: a claim whose answer
        was lost. Runs in the claim loop, so no claim is on its way meanwhile."""
        async with self._pool.acquire() as connection:
            believed = await dispatch.held_by(connection, self._id)
            unknown = [held for held in believed if self._held.get(held.job) != held.lease]
            if unknown:
                released = [held.ended(lifecycle.release(held.standing)) for held in unknown]
                await dispatch.hand_back(connection, self._lanes, released)
                telemetry.warning(
                    LogEvent.ATTEMPTS_RELEASED, attempts=len(unknown), why="the answer to a claim was lost"
                )
        self._answer_lost = False
        self._reconciled_at = now
