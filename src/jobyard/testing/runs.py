"""What a yard runs: all that is ready, or one handler alone; and what a test hears of it."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple, TypedDict

import msgspec

from jobyard.client.wire import encode
from jobyard.domain.job import (
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_PRIORITY,
    DEFAULT_QUEUE,
    DEFAULT_TENANT,
    DEFAULT_TIMEOUT_SECONDS,
)
from jobyard.domain.lifecycle import TRUSTED, Fail, Retry
from jobyard.domain.retry import Backoff
from jobyard.ids import new_job_id
from jobyard.store.dispatch import Claimed, Lane
from jobyard.testing.jobs import Job
from jobyard.testing.loop_thread import LoopThread
from jobyard.testing.site import Site
from jobyard.testing.turns import Turn, Turns
from jobyard.worker.handlers import Handler, Handlers
from jobyard.worker.link import HandlerDatabase

CLAIM_ROWS = 200


class NeverIdle(AssertionError):
    """More attempts ran than a test can mean, and there were still jobs to run."""


class NoHandler(UserWarning):
    """Jobs are ready whose type has no handler: perhaps mistyped, or the module of the handler is not imported."""


class AttemptOptions(TypedDict, total=False):
    """What a handler that is run alone sees in its context."""

    attempt: int
    max_attempts: int
    timeout_seconds: float
    queue: str
    tags: list[str]
    metadata: dict[str, str]


class Ran(NamedTuple):
    """An attempt, and its job as it left it."""

    turn: Turn
    job: Job


class Idle(NamedTuple):
    """What ran until nothing was left to run, and what nobody runs: how many ready jobs of each such type."""

    ran: list[Ran]
    unhandled: dict[str, int]
    types: list[str]
    """Those that have a handler."""


class Runs:
    """Attempts run in the event loop that asks for them; what they read and write does so in the site's."""

    def __init__(self, thread: LoopThread, site: Site, max_result_bytes: int) -> None:
        self._thread = thread
        self._site = site
        self._max_result_bytes = max_result_bytes
        self._running = False

    async def until_idle(self, handlers: Handlers, limit: int) -> Idle:
        """Raises NeverIdle."""
        ran: list[Ran] = []
        types = handlers.types()
        async with self._turns(handlers, of_jobs=True) as turns:
            worker = await self._thread.ask(self._site.start_worker(types))
            while room := min(CLAIM_ROWS, limit - len(ran)):
                claimed = await self._thread.ask(self._site.claim(worker, types, room))
                if not claimed:
                    break
                for attempt, lane in claimed:
                    ran.append(await self._take(turns, attempt, lane))
            await self._thread.ask(self._site.stop_worker(worker))
        ready = await self._thread.ask(self._site.ready())
        unhandled = {type: count for type, count in ready.items() if type not in types}
        if left := {type: count for type, count in ready.items() if type in types}:
            raise NeverIdle(_why_never_idle(ran, left))
        return Idle(ran, unhandled, types)

    async def alone(self, handler: Handler, payload: Any, now: datetime, options: AttemptOptions) -> Turn:
        async with self._turns(Handlers().merged([handler]), of_jobs=False) as turns:
            claimed = _as_if_claimed(handler.type, payload, now, options)
            return await turns.take(
                claimed, Lane(0, DEFAULT_TENANT, claimed.queue, claimed.type, DEFAULT_PRIORITY, TRUSTED)
            )

    async def _take(self, turns: Turns, attempt: Claimed, lane: Lane) -> Ran:
        turn = await turns.take(attempt, lane)
        job = await self._thread.ask(self._site.settle(turn.ending, turn.call.said))
        return Ran(turn, job)

    def require_free(self) -> None:
        """Raises RuntimeError within a run: it has one slot, and whoever asks is in it."""
        if self._running:
            raise RuntimeError("a handler cannot run the jobs of the test that runs it")

    @asynccontextmanager
    async def _turns(self, handlers: Handlers, *, of_jobs: bool) -> AsyncGenerator[Turns]:
        self.require_free()
        self._running = True
        try:
            database = HandlerDatabase(self._site.database_url, 2, self._max_result_bytes)
            async with Turns(handlers, self._max_result_bytes, database, of_jobs=of_jobs) as turns:
                yield turns
        finally:
            self._running = False


def jobs_of(idle: Idle, raising: bool) -> list[Job]:
    """The jobs in the order they ran. Raises the first error, with a note that says whose it is; warns whoever called
    the caller of jobs that nobody runs."""
    __tracebackhide__ = True
    failed = [(each, error) for each in idle.ran if (error := each.turn.error) is not None] if raising else []
    if failed:
        (turn, job), error = failed[0]
        error.add_note(f"In attempt {turn.claimed.attempt} of {job.max_attempts} of {job}.")
        if len(failed) > 1:
            error.add_note(f"{len(failed) - 1} more attempts failed in this run.")
        error.add_note("With raising=False the jobs keep their errors, and the test goes on.")
        raise error
    if idle.unhandled:
        warnings.warn(_whom_nobody_runs(idle), NoHandler, stacklevel=3)
    return [job for _, job in idle.ran]


def result_of(turn: Turn) -> Any:
    """The result as it would be kept, or the Retry or Fail that was returned. Raises the attempt's error."""
    __tracebackhide__ = True
    if (error := turn.error) is not None:
        raise error
    if isinstance(turn.call.returned, Retry | Fail):
        return turn.call.returned
    result = turn.ending.change.result
    return None if result is None else msgspec.json.decode(result)


def _as_if_claimed(type: str, payload: Any, now: datetime, options: AttemptOptions) -> Claimed:
    backoff = Backoff()
    tags, metadata = options.get("tags"), options.get("metadata")
    return Claimed(
        job=new_job_id(),
        lease=1,
        lane=0,
        run=1,
        attempt=options.get("attempt", 1),
        crashes=0,
        type=type,
        queue=options.get("queue", DEFAULT_QUEUE),
        payload=encode({} if payload is None else payload).decode(),
        timeout_seconds=options.get("timeout_seconds", DEFAULT_TIMEOUT_SECONDS),
        max_attempts=options.get("max_attempts", DEFAULT_MAX_ATTEMPTS),
        backoff_base=backoff.base_seconds,
        backoff_cap=backoff.cap_seconds,
        tags=None if tags is None else encode(tags).decode(),
        metadata=None if metadata is None else encode(metadata).decode(),
        trace=None,
        created_at=now,
    )


def _why_never_idle(ran: list[Ran], left: dict[str, int]) -> str:
    most = Counter(each.turn.claimed.type for each in ran).most_common(5)
    return (
        f"{len(ran)} attempts ran, and there are still jobs to run. "
        f"What ran most: {_counted(dict(most))}. What is ready: {_counted(left)}. "
        "Does a handler create a job each time that has it run again? If all are meant, "
        "allow more: run_until_idle(limit=...)."
    )


def _whom_nobody_runs(idle: Idle) -> str:
    return (
        f"jobs are ready that have no handler: {_counted(idle.unhandled)}; "
        f"there are handlers for {', '.join(idle.types)}. Is the type mistyped, or its module not imported? "
        "If others run them, ignore this warning (jobyard.testing.NoHandler)"
    )


def _counted(types: dict[str, int]) -> str:
    return ", ".join(f"{type} ({count})" for type, count in types.items())
