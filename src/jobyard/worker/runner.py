"""Starts attempts in the slots, enforces their time limits, and turns each into an ending for the settler."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import assert_never

import msgspec

from jobyard import telemetry
from jobyard.domain import lifecycle
from jobyard.domain.lifecycle import SUSPECT, Change, Crashed, Failed, Outcome, Succeeded, TimedOut
from jobyard.ports import Clock
from jobyard.store.dispatch import Claimed, Ending, Lane
from jobyard.telemetry import LogEvent, metrics, traces
from jobyard.worker import attempt
from jobyard.worker.children import Children
from jobyard.worker.handlers import Handlers
from jobyard.worker.slots import Ended, Place, Running, Slots, Waiting

CANCEL_PATIENCE_SECONDS = 5.0
"""How long a handler that was cancelled may clean up before its slot is taken away from it."""

DEADLINES_KEPT = 1000
"""Of attempts that are over, before they are forgotten together."""


class Runner:
    """`on_end` receives every ending; `on_room` is called when there may be room for another claim. Without `children`
    what would run in one runs here; without `tells` nothing of the attempts is logged."""

    def __init__(
        self,
        handlers: Handlers,
        concurrency: int,
        max_result_bytes: int,
        clock: Clock,
        on_end: Callable[[Ending], None],
        on_room: Callable[[], None],
        children: Children | None = None,
        *,
        tells: bool = True,
    ) -> None:
        self.slots = Slots(concurrency)
        self.stuck_threads = 0
        self._at_work = 0
        self._tells = tells
        self._tells_all = tells and telemetry.detailed()
        self._handlers = handlers
        self._max_result_bytes = max_result_bytes
        self._clock = clock
        self._on_end = on_end
        self._on_room = on_room
        self._children = children
        self._spans = traces.spans()
        # As many again as there are slots, for those that a time limit took away from a thread that goes on.
        self._threads = ThreadPoolExecutor(2 * concurrency, thread_name_prefix="handler")
        self._context = contextvars.copy_context()
        self._deadlines: list[tuple[float, int, Running]] = []
        self._order = count()
        self._deadline_set = asyncio.Event()
        self._all_over = asyncio.Event()

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

    async def enforce_deadlines(self) -> None:
        """One timer for all attempts: a timer each would cost more than many a job."""
        while True:
            self._deadline_set.clear()
            now = self._clock.now()
            while self._deadlines and (self._deadlines[0][0] <= now or self._deadlines[0][2].over):
                self._past_deadline(heapq.heappop(self._deadlines)[2])
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
            self._cancel(running, how)

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
            deadlines[:] = [entry for entry in deadlines if not entry[2].over]
            heapq.heapify(deadlines)
        heapq.heappush(deadlines, (at, next(self._order), running))

    def _past_deadline(self, running: Running) -> None:
        if running.over:
            return
        in_thread = running.place is Place.THREAD
        if running.ended is None:
            self._cancel(running, Ended.BY_TIMEOUT)
            if not in_thread:
                return
        self.stuck_threads += running.begun and in_thread
        self._end(running, self._outcome_of_cancelled(running))

    def _cancel(self, running: Running, how: Ended) -> None:
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
        if running.ended is Ended.BY_TIMEOUT or (
            running.ended is Ended.BY_RELEASE and isinstance(outcome, Failed | Crashed)
        ):
            # It was told to stop: what it made of that is not its own outcome.
            outcome = self._outcome_of_cancelled(running)
        self._at_work -= running.place is not Place.CHILD
        if running.over and running.place is Place.THREAD:
            self.stuck_threads -= 1
        self._end(running, outcome)

    async def _run(self, running: Running) -> Outcome:
        claimed = running.claimed
        if running.place is Place.CHILD and self._children is not None:
            return await self._children.run(claimed, lambda: self._begun_in_child(running))
        handler = self._handlers.get(claimed.type)
        return await attempt.run(handler, claimed, self._threads, self._max_result_bytes)

    def _begun_in_child(self, running: Running) -> None:
        running.started = self._clock.now()
        if running.ended is None:
            self._set_deadline(running, running.started + running.claimed.timeout_seconds)

    def _outcome_of_cancelled(self, running: Running) -> Outcome | None:
        """None: not an outcome but a hand-back, or nothing at all where the lease is gone."""
        match running.ended:
            case Ended.BY_TIMEOUT:
                return TimedOut(running.claimed.timeout_seconds)
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
        lost = running.ended is Ended.BY_LEASE_LOSS
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
        if type(outcome) is Succeeded:
            change = lifecycle.complete(claimed.attempt, claimed.crashes, outcome.result)
            if self._tells_all:
                _tell_completion(claimed, ran)
        elif outcome is None:
            change = lifecycle.release(claimed.standing(lane.suspect))
        else:
            change = lifecycle.settle(claimed.standing(lane.suspect), outcome, random.random())
            if isinstance(outcome, TimedOut):
                metrics.timed_out(claimed.queue, claimed.type)
            if self._tells:
                _tell_failure(claimed, change)
        return Ending(claimed.job, claimed.lease, lane.key, change, ran)


def _tell_completion(claimed: Claimed, ran: float) -> None:
    telemetry.debug(LogEvent.ATTEMPT_COMPLETED, **telemetry.facts_of(claimed), seconds=round(ran, 6))


def _tell_failure(claimed: Claimed, change: Change) -> None:
    telemetry.warning(
        LogEvent.ATTEMPT_FAILED,
        **telemetry.facts_of(claimed),
        error=(change.error or {}).get("type"),
        cause=change.cause.value,
        becomes=change.status.value,
        retry_in=None if change.run_in is None else round(change.run_in, 3),
    )
