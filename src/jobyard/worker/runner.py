"""Starts attempts in the slots, enforces their time limits, and turns each into an ending for the settler."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar, assert_never

import msgspec

from jobyard import telemetry
from jobyard.domain import lifecycle
from jobyard.domain.lifecycle import (
    SUSPECT,
    Cancelled,
    Change,
    Crashed,
    Failed,
    Outcome,
    Retry,
    Succeeded,
    TimedOut,
)
from jobyard.ports import Clock
from jobyard.store.dispatch import Claimed, Ending, Lane
from jobyard.telemetry import LogEvent, metrics, traces
from jobyard.worker import attempt
from jobyard.worker.children import Children
from jobyard.worker.handlers import Handlers
from jobyard.worker.link import Committed, HandlerDatabase, Link, LogLine, Progress, Told
from jobyard.worker.slots import Ended, Place, Running, Slots, Waiting

R = TypeVar("R")

CANCEL_PATIENCE_SECONDS = 5.0
"""How long a handler that was cancelled may clean up before its slot is taken away from it."""

DEADLINES_KEPT = 1000
"""Of attempts that are over, before they are forgotten together."""


class Runner:
    """`on_end` receives every ending; `on_room` is called when there may be room for another claim. Without `children`
    what would run in one runs here. `on_told` takes, in any thread, what attempts say while they run. Attempts that are
    not `of_jobs` are a test's alone: there is nothing to log or to complete."""

    def __init__(
        self,
        handlers: Handlers,
        concurrency: int,
        max_result_bytes: int,
        clock: Clock,
        on_end: Callable[[Ending], None],
        on_room: Callable[[], None],
        children: Children | None = None,
        database: HandlerDatabase | None = None,
        on_told: Callable[[Claimed, Progress | LogLine], None] | None = None,
        *,
        of_jobs: bool = True,
    ) -> None:
        self.slots = Slots(concurrency)
        self.stuck_threads = 0
        self._at_work = 0
        self._of_jobs = of_jobs
        self._tells_all = of_jobs and telemetry.detailed()
        self._handlers = handlers
        self._max_result_bytes = max_result_bytes
        self._clock = clock
        self._on_end = on_end
        self._on_room = on_room
        self._children = children
        self._database = database
        self._on_told = on_told
        self._spans = traces.spans()
        # As many again as there are slots, for those that a time limit took away from a thread that goes on.
        self._threads = ThreadPoolExecutor(2 * concurrency, thread_name_prefix="handler")
        self._context = contextvars.copy_context()
        # When, and the lease: so that what is over is not kept alive.
        self._deadlines: list[tuple[float, int]] = []
        self._deadline_set = asyncio.Event()
        self._all_over = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def accept(self, claimed: Claimed, lane: Lane, now: float) -> None:
        self.slots.waiting.append(Waiting(claimed, lane, now))

    def start_waiting(self) -> None:
        while (next_one := self.slots.next_to_start()) is not None:
            self._start(next_one)

    def take_back_waiting(self, for_seconds: float = 0.0) -> list[Waiting]:
        """What was claimed ahead, has not started, and has waited at least so long."""
        since = self._clock.now() - for_seconds
        taken: list[Waiting] = []
        while self.slots.waiting and self.slots.waiting[0].since <= since:
            taken.append(self.slots.waiting.popleft())
        return taken

    def release_waiting(self, for_seconds: float = 0.0) -> None:
        """Hand it back: another worker may be idle."""
        for claimed, lane, _ in self.take_back_waiting(for_seconds):
            change = lifecycle.release(claimed.standing(lane.suspect))
            self._on_end(Ending(claimed.job, claimed.lease, lane.key, change))

    async def enforce_deadlines(self) -> None:
        """One timer for all attempts: a timer each would cost more than many a job."""
        while True:
            self._deadline_set.clear()
            now = self._clock.now()
            while self._deadlines and (self._deadlines[0][0] <= now or not self._runs(self._deadlines[0])):
                self._past_deadline(heapq.heappop(self._deadlines)[1])
            pause = self._deadlines[0][0] - now if self._deadlines else 3600.0
            try:
                async with asyncio.timeout(pause):
                    await self._deadline_set.wait()
            except TimeoutError:
                continue

    async def all_over(self, seconds: float) -> bool:
        """Wait for the running attempts; whether all ended in time."""
        try:
            async with asyncio.timeout(seconds):
                while self.slots.running:
                    self._all_over.clear()
                    await self._all_over.wait()
        except TimeoutError:
            return False
        return True

    def end_all(self, how: Ended) -> None:
        """Cancel what runs: each attempt ends as soon as its handler lets go."""
        for running in list(self.slots.running.values()):
            self.cancel(running, how)

    def abandon_all(self) -> None:
        """End what still runs without waiting for it any longer."""
        for running in list(self.slots.running.values()):
            self._end(running, self._outcome_of_cancelled(running))

    def show(self) -> None:
        """As metrics: how much of the worker is in use."""
        metrics.SLOTS.set(self.slots.concurrency)
        metrics.SLOTS_USED.set(len(self.slots.running))
        metrics.CLAIMED_AHEAD.set(len(self.slots.waiting))
        metrics.STUCK_THREADS.set(self.stuck_threads)

    @property
    def handlers_at_work(self) -> bool:
        """Whether any goes on in this process, also those whose attempt was taken from them."""
        return self._at_work > 0

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._children is not None:
            await self._children.close()

    def _place_of(self, claimed: Claimed, lane: Lane) -> Place:
        """A suspect may kill the process it runs in, so it gets one of its own."""
        handler = self._handlers.get(claimed.type)
        if self._children is not None and (handler.process or lane.suspect >= SUSPECT):
            return Place.CHILD
        return Place.LOOP if handler.is_async else Place.THREAD

    def _start(self, waiting: Waiting) -> None:
        now, claimed = self._clock.now(), waiting.claimed
        running = Running(claimed, waiting.lane, self._place_of(claimed, waiting.lane), now)
        self.slots.running[claimed.lease] = running
        # A context of its own: what one job sets there must never show in the next.
        context = self._context.copy()
        if self._spans is not None:
            running.span = self._spans.attempt(claimed, now - waiting.since)
            # What the handler is told of its trace is where it stands itself.
            running.claimed = msgspec.structs.replace(claimed, trace=running.span.traceparent)
            context.run(running.span.enter)
        running.task = asyncio.get_running_loop().create_task(self._attempt(running), context=context)
        if running.place is not Place.CHILD:  # there the time begins with the handler
            self._set_deadline(running, now + claimed.timeout_seconds)

    def _set_deadline(self, running: Running, at: float) -> None:
        deadlines = self._deadlines
        if not deadlines or at < deadlines[0][0]:
            self._deadline_set.set()
        elif len(deadlines) > 4 * len(self.slots.running) + DEADLINES_KEPT:
            # Most attempts end long before their time: forget the deadlines of those that are over.
            deadlines[:] = filter(self._runs, deadlines)
            heapq.heapify(deadlines)
        heapq.heappush(deadlines, (at, running.claimed.lease))

    def _runs(self, deadline: tuple[float, int]) -> bool:
        return deadline[1] in self.slots.running

    def _past_deadline(self, lease: int) -> None:
        running = self.slots.running.get(lease)
        if running is None:
            return
        in_thread = running.place is Place.THREAD
        if running.ended is None:
            self.cancel(running, Ended.BY_TIMEOUT)
            if not in_thread:
                return
        self.stuck_threads += running.begun and in_thread
        self._end(running, self._outcome_of_cancelled(running))

    def cancel(self, running: Running, how: Ended) -> None:
        if running.ended is not None:
            return
        running.ended = how
        # A task that is cancelled before its first step would never reach its end.
        if running.begun and running.task and running.place is not Place.THREAD:
            running.task.cancel()
            self._set_deadline(running, self._clock.now() + CANCEL_PATIENCE_SECONDS)
        if how is Ended.BY_LEASE_LOSS:
            self._kill_child_of(running)

    def _kill_child_of(self, running: Running) -> None:
        if running.place is Place.CHILD and self._children is not None:
            self._children.kill(running.claimed.lease)

    async def _attempt(self, running: Running) -> None:
        if running.was_told_to_end:
            self._end(running, self._outcome_of_cancelled(running))
            return
        running.begun = True
        telemetry.about(running.claimed)
        if self._tells_all:
            telemetry.debug(LogEvent.ATTEMPT_STARTED, **telemetry.facts_of(running.claimed))
        self._at_work += running.place is not Place.CHILD
        try:
            outcome = await self._run(running)
        except asyncio.CancelledError as error:
            if running.ended is None:
                outcome = Failed(attempt.describe(error))
            else:
                outcome = self._outcome_of_cancelled(running)
        except BaseException as error:  # whatever a handler brings about, its slot comes back
            outcome = Failed(attempt.describe(error))
        if not _is_its_own(running.ended, outcome):
            outcome = self._outcome_of_cancelled(running)
        self._at_work -= running.place is not Place.CHILD
        if running.over and running.place is Place.THREAD:
            self.stuck_threads -= 1
        self._end(running, outcome)

    async def _run(self, running: Running) -> Outcome:
        claimed = running.claimed
        if running.place is Place.CHILD and self._children is not None:
            begun, heard = partial(self._begun_in_child, running), partial(self._hear, running)
            return await self._children.run(claimed, begun, heard)
        handler, link = self._handlers.get(claimed.type), partial(self._link, running)
        return await attempt.run(handler, claimed, link, self._threads, self._max_result_bytes)

    def _link(self, running: Running) -> Link:
        hear, told = partial(self._hear, running), lambda: running.was_told_to_end
        return Link(running.claimed, self._database, hear, told, self._block, self._of_jobs)

    def _hear(self, running: Running, told: Told) -> None:
        if isinstance(told, Committed):
            running.committed = told
        elif self._on_told is not None:
            self._on_told(running.claimed, told)

    def _block(self, work: Coroutine[Any, Any, R]) -> R:
        """For a handler in a thread: what it waits for is done in this loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _begun_in_child(self, running: Running) -> None:
        running.started = self._clock.now()
        if running.ended is None:
            self._set_deadline(running, running.started + running.claimed.timeout_seconds)

    def _outcome_of_cancelled(self, running: Running) -> Outcome | None:
        """None: not an outcome but a hand-back, or nothing at all where the lease is gone."""
        match running.ended:
            case Ended.BY_TIMEOUT:
                return TimedOut(running.claimed.timeout_seconds)
            case Ended.BY_CANCEL:
                return Cancelled()
            case Ended.BY_RELEASE | Ended.BY_LEASE_LOSS | None:
                return None
            case _:
                assert_never(running.ended)

    def _end(self, running: Running, outcome: Outcome | None) -> None:
        if running.over:
            return
        running.over = True
        self._kill_child_of(running)
        slots = self.slots
        del slots.running[running.claimed.lease]
        now = self._clock.now()
        slots.count_ended(now)
        lost = running.ended is Ended.BY_LEASE_LOSS and running.committed is None
        ending = None if lost else self._ending(running, outcome, now - running.started)
        if ending is None:
            metrics.LEASES_LOST.add()
        else:
            self._on_end(ending)
        if running.span is not None:
            running.span.end(ending and ending.change, outcome)
        self.start_waiting()
        if not slots.running:
            self._all_over.set()
        self._on_room()

    def _ending(self, running: Running, outcome: Outcome | None, ran: float) -> Ending:
        claimed, lane = running.claimed, running.lane
        if running.committed is not None:
            change = lifecycle.complete(claimed.attempt, claimed.crashes, running.committed.result)
        elif type(outcome) is Succeeded:
            change = lifecycle.complete(claimed.attempt, claimed.crashes, outcome.result)
            if self._tells_all:
                _tell_completion(claimed, ran)
        elif outcome is None:
            change = lifecycle.release(claimed.standing(lane.suspect))
        else:
            change = lifecycle.settle(claimed.standing(lane.suspect), outcome, random.random())
            if isinstance(outcome, TimedOut):
                metrics.timed_out(claimed.queue, claimed.type)
            if self._of_jobs and isinstance(outcome, Retry) and change.run_in is not None:
                _tell_wish(claimed, change.run_in)
            elif self._of_jobs:
                _tell_failure(claimed, change)
        return Ending(claimed.job, claimed.lease, lane.key, change, ran, running.committed is not None)


def _is_its_own(ended: Ended | None, outcome: Outcome | None) -> bool:
    """Whether an attempt decided itself how it ended. One that was told to end, and did not complete its job all the
    same, did not; and what comes after a timeout does not count."""
    match ended:
        case None:
            return True
        case Ended.BY_TIMEOUT:
            return False
        case Ended.BY_CANCEL:
            return isinstance(outcome, Succeeded)
        case Ended.BY_RELEASE | Ended.BY_LEASE_LOSS:
            return not isinstance(outcome, Failed | Crashed)
        case _:
            assert_never(ended)


def _tell_completion(claimed: Claimed, ran: float) -> None:
    telemetry.debug(LogEvent.ATTEMPT_COMPLETED, **telemetry.facts_of(claimed), seconds=round(ran, 6))


def _tell_wish(claimed: Claimed, retry_in: float) -> None:
    telemetry.info(LogEvent.ATTEMPT_PUT_OFF, **telemetry.facts_of(claimed), retry_in=round(retry_in, 3))


def _tell_failure(claimed: Claimed, change: Change) -> None:
    telemetry.warning(
        LogEvent.ATTEMPT_FAILED,
        **telemetry.facts_of(claimed),
        error=(change.error or {}).get("type"),
        at=attempt.raised_at(change.error or {}),
        cause=change.cause.value,
        becomes=change.status.value,
        retry_in=None if change.run_in is None else round(change.run_in, 3),
    )
