"""Who the worker is, and what it claims: its id and lanes, one claim after another while there is room, and what it holds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from uuid import UUID

from jobyard import telemetry
from jobyard.domain import lifecycle
from jobyard.domain.announcement import Announcement
from jobyard.domain.errors import WorkerExpired
from jobyard.domain.lifecycle import SOLITARY
from jobyard.loop import backoff, end_if_cancelled
from jobyard.ports import Clock, WakeUp
from jobyard.store import dispatch
from jobyard.store.database import Pool
from jobyard.store.dispatch import Claimed, Lane
from jobyard.store.lanes import Lanes
from jobyard.telemetry import LogEvent, metrics
from jobyard.worker.heartbeat import Heartbeat
from jobyard.worker.inbox import Ears, Heard, Inbox
from jobyard.worker.lanebook import LaneBook
from jobyard.worker.pace import Pace
from jobyard.worker.runner import Runner
from jobyard.worker.slots import Ended

POLL_SECONDS = 1.0
POLL_WHILE_HEARING_SECONDS = 10.0
"""While announcements arrive and the poll before found nothing that they had not told of."""

LANES_SECONDS = 10.0
"""How often the lanes are read anew, beside the wake-up that every new lane brings."""

FULL_CLAIMS_UNTIL_BUSY = 2

LAST_CLAIM_SECONDS = 1.0
"""How long a worker that stops waits for its last claim, before it hands back what it heard."""

Listen = Callable[[Sequence[str], Inbox, Callable[[], int]], Ears]
"""What listens for these types into this inbox, as long as there is room."""


class Claimer:
    """Claims for `runner` until `stop` is called."""

    def __init__(
        self,
        pool: Pool,
        clock: Clock,
        lanes: Lanes,
        runner: Runner,
        types: Sequence[str],
        lease_seconds: float,
        heartbeat: Callable[[Callable[[int], None]], Heartbeat],
        listen: Listen | None = None,
        *,
        ack_at_end: bool = False,
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._lanes = lanes
        self._runner = runner
        self._types = types
        self._lease_seconds = lease_seconds
        self._heartbeat = heartbeat(self._expired_in_thread)
        self._book = LaneBook(clock.now)
        self._pace = Pace()
        self._loop = asyncio.get_running_loop()
        self.id = 0
        self._idle = False
        self._full_claims = 0
        self._held: dict[UUID, int] = {}
        self._solitary_held = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._stop = asyncio.Event()
        self._must_look_everywhere = True
        self._lanes_stale = True
        self._answer_lost = False
        self._lanes_read_at = 0.0
        self._reconciled_at = 0.0
        self._inbox = Inbox(self._wake.set, ack_at_end=ack_at_end)
        self._ears = listen(types, self._inbox, self._room_to_hear) if listen else None
        self._poll_at = 0.0
        self.failures = 0

    @property
    def ears(self) -> Ears | None:
        return self._ears

    @property
    def can_claim(self) -> bool:
        return self.id != 0 and not self._stop.is_set() and not self.failures

    @property
    def beats(self) -> bool:
        return not self._heartbeat.failures

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()
        self._room.set()

    async def stopped(self) -> None:
        """Wait until somebody has told it to stop."""
        await self._stop.wait()

    async def hear_no_more(self, claiming: asyncio.Task[None]) -> None:
        """What was heard and not claimed comes to others, once the last claim is heard out."""
        await asyncio.wait([claiming], timeout=LAST_CLAIM_SECONDS)
        await self._inbox.acked()
        if self._ears is not None:
            await self._ears.leave()

    async def acked(self) -> None:
        await self._inbox.acked()

    def close(self) -> None:
        """No beat from now on: what is still held goes to others once the lease is over."""
        self._heartbeat.stop()

    # What others tell it

    def woken(self, wake: WakeUp) -> None:
        if wake.workers and self.id not in wake.workers:
            return
        if not wake.lanes:
            self._look_everywhere()
        if not self._book.woken(wake.lanes):
            self._lanes_stale = True
        self._wake.set()

    def room_made(self) -> None:
        self._room.set()
        if self._ears is not None:
            self._ears.room_made()

    def let_go(self, job: UUID, lease: int, suspect: int) -> None:
        """The attempt is settled, or its lease is lost."""
        self._inbox.ended(job)
        if self._held.get(job) == lease:
            del self._held[job]
            if suspect == SOLITARY:
                self._solitary_held -= 1
                self._wake.set()  # the next of them may have been heard of

    def _expired_in_thread(self, worker: int) -> None:
        self._loop.call_soon_threadsafe(self._expired, worker)

    def _expired(self, worker: int) -> None:
        """The row is gone and every lease with it: drop what is held, and claim again only under a new id."""
        if worker != self.id:
            return
        telemetry.warning(LogEvent.WORKER_EXPIRED, worker=worker, attempts=len(self._held))
        self.id = 0
        metrics.LEASES_LOST.add(by=len(self._runner.take_back_waiting()))
        self._runner.end_all(Ended.BY_LEASE_LOSS)
        self._held.clear()
        self._solitary_held = 0
        self._wake.set()
        self._room.set()

    # The claim loop

    async def run(self) -> None:
        while not self._stop.is_set():
            try:
                await self._claim_or_wait()
                self.failures = 0
            except WorkerExpired:
                self._expired(self.id)
            except Exception as trouble:
                # Whatever it was, waiting and trying again is the cure.
                end_if_cancelled()
                await self._back_off(trouble)

    async def _back_off(self, trouble: Exception) -> None:
        # Nothing is known of what was asked last: it may be done or not.
        self._answer_lost, self.idle = True, False
        self._look_everywhere()
        self.failures += 1
        metrics.loop_failed("claim")
        if self.failures == 1:
            error = f"{type(trouble).__name__}: {trouble}"
            telemetry.warning(LogEvent.LOOP_FAILED, loop="claim", error=error)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(backoff(self.failures)):
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
        if self._ears is None:
            await self._look_or_wait(room)
        else:
            await self._follow_or_wait(room, self._ears)

    def _room_to_hear(self) -> int:
        return 0 if self._stop.is_set() else self._runner.slots.room(self._clock.now())

    async def _look_or_wait(self, room: int) -> None:
        """Where wake-ups tell of work: look for it in the lanes."""
        everywhere, self._must_look_everywhere = self._must_look_everywhere, False
        found = await self._claim(room, everywhere=everywhere)
        self._pace.took(found, self._clock.now())
        if found >= room:
            await self._count_full_claim()
        elif not self.idle:
            # Say so first and look once more: whoever creates a job from now on knows to wake this worker.
            await self._say_idle(True)
            self._must_look_everywhere = True
        else:
            self._full_claims = 0
            await self._wait_for_work(POLL_SECONDS)
            await self._pace.wait_for_company(self._clock)

    async def _follow_or_wait(self, room: int, ears: Ears) -> None:
        """Where jobs are announced: claim those that were, and look for others now and then."""
        now = self._clock.now()
        if heard := self._inbox.take(room, self._order):
            self._pace.took(await self._claim_heard(heard, now), now)
            # Let the attempts that were just started have their turn.
            await asyncio.sleep(0)
        elif now >= self._poll_at or self._must_look_everywhere:
            self._must_look_everywhere = False
            found = await self._claim(room, everywhere=True)
            if found >= room and not ears.works:
                self._poll_at = now
            else:
                alone = found or not ears.works
                self._poll_at = now + (POLL_SECONDS if alone else POLL_WHILE_HEARING_SECONDS)
        else:
            limit = POLL_SECONDS if not ears.works else POLL_WHILE_HEARING_SECONDS
            await self._wait_for_work(min(limit, self._poll_at - now))
            await self._pace.wait_for_company(self._clock)

    def _order(self, announcement: Announcement) -> tuple[int, ...] | None:
        """Urgent ones first, then the oldest. None: it cannot be claimed now, as of those jobs a worker runs one at a time."""
        lane = self._book.find(announcement.lane)
        if lane is None:
            return 0, announcement.seq
        if lane.suspect == SOLITARY and self._solitary_held:
            return None
        return -lane.priority, announcement.seq

    async def _claim_heard(self, heard: list[Heard], now: float) -> int:
        worker = self.id
        try:
            heard = await self._that_can_be(heard, now)
            async with self._pool.acquire() as connection:
                claimed = await dispatch.claim_announced(
                    connection, worker, [it.announcement for it in heard], self._lease_seconds
                )
        except BaseException:
            self._inbox.give_back(heard)
            raise
        self._inbox.claimed(heard, claimed)
        if worker != self.id:
            return 0  # it expired meanwhile: these leases are lost already
        self._accept(claimed)
        return len(claimed)

    async def _that_can_be(self, heard: list[Heard], now: float) -> list[Heard]:
        """Without what names lanes that are not this worker's, and with one solitary job at most."""
        if any(self._book.find(it.announcement.lane) is None for it in heard):
            await self._read_lanes(now)
        able: list[Heard] = []
        solitary = False
        for it in heard:
            lane = self._book.find(it.announcement.lane)
            if lane is None:
                telemetry.warning(
                    LogEvent.ANNOUNCEMENT_STRANGE, subscription="", message=it.delivery.message.id
                )
                self._inbox.claimed([it], [])
            elif lane.suspect == SOLITARY and solitary:
                self._inbox.give_back([it])
            else:
                solitary |= lane.suspect == SOLITARY
                able.append(it)
        return able

    async def _claim(self, room: int, *, everywhere: bool) -> int:
        """Claim up to `room` attempts and start them; how many there were."""
        found = 0
        if not self._solitary_held:
            lanes, hints = self._book.solitary(everywhere=everywhere)
            if lanes:
                found += await self._claim_from(lanes, hints, 1)
        for lanes, hints in self._book.groups(everywhere=everywhere, careful=self.idle):
            found += await self._claim_from(lanes, hints, room - found)
            if found >= room:
                break
        return found

    async def _claim_from(self, lanes: Sequence[int], hints: Sequence[int], limit: int) -> int:
        worker = self.id
        if limit <= 0 or not worker or self._stop.is_set():
            return 0
        async with self._pool.acquire() as connection:
            claimed = await dispatch.claim(connection, worker, lanes, hints, limit, self._lease_seconds)
        if worker != self.id:
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
            self._runner.release_waiting()
        else:
            self._runner.start_waiting()

    async def _count_full_claim(self) -> None:
        self._full_claims += 1
        if self.idle and self._full_claims > FULL_CLAIMS_UNTIL_BUSY:
            # Busy: creates need not pay for waking it.
            await self._say_idle(False)
        # Let the attempts that were just started have their turn.
        await asyncio.sleep(0)

    async def _say_idle(self, idle: bool) -> None:
        async with self._pool.acquire() as connection:
            await dispatch.set_idle(connection, self.id, idle)
        self.idle = idle

    async def _wait_for_work(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            self._look_everywhere()

    # Identity, lanes and lost answers

    async def _keep_up_with_the_database(self) -> None:
        now = self._clock.now()
        if self.id == 0:
            await self._take_new_id()
        if self._lanes_stale or now - self._lanes_read_at > LANES_SECONDS:
            await self._read_lanes(now)
        if self._answer_lost or now - self._reconciled_at > self._lease_seconds:
            await self._reconcile(now)

    async def _take_new_id(self) -> None:
        name = f"{socket.gethostname()}:{os.getpid()}"
        async with self._pool.acquire() as connection:
            self.id = await dispatch.start_worker(
                connection, name, self._types, self._runner.slots.concurrency, self._lease_seconds
            )
        self.idle = False
        if self._heartbeat.started:
            self._heartbeat.beat_for(self.id)
        else:
            self._heartbeat.start(self.id)
        telemetry.info(LogEvent.WORKER_STARTED, worker=self.id, name=name, types=self._types)

    async def _read_lanes(self, now: float) -> None:
        self._lanes_stale = False
        async with self._pool.acquire() as connection:
            lanes: list[Lane] = await dispatch.lanes_of(connection, self._types)
        self._book.learn(lanes)
        self._lanes_read_at = now

    async def _reconcile(self, now: float) -> None:
        """Hand back what the database believes this worker holds and the worker never heard of: a claim whose answer
        was lost. Runs in the claim loop, so no claim is on its way meanwhile."""
        async with self._pool.acquire() as connection:
            believed = await dispatch.held_by(connection, self.id)
            unknown = [held for held in believed if self._held.get(held.job) != held.lease]
            if unknown:
                released = [held.ended(lifecycle.release(held.standing)) for held in unknown]
                await dispatch.hand_back(connection, self._lanes, released)
                telemetry.warning(
                    LogEvent.ATTEMPTS_RELEASED, attempts=len(unknown), why="the answer to a claim was lost"
                )
        self._answer_lost = False
        self._reconciled_at = now
