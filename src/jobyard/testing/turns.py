"""Attempts one after another, each through the worker's own runner, and what their handlers did seen from nearby."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from jobyard.clock import SystemClock
from jobyard.domain.lifecycle import Fail, Retry, Status
from jobyard.store.dispatch import Claimed, Ending, Lane
from jobyard.worker.handlers import Handler, Handlers
from jobyard.worker.link import HandlerDatabase, LogLine, Progress
from jobyard.worker.runner import Runner
from jobyard.worker.slots import Ended

LET_GO_SECONDS = 1.0
"""How long a handler whose test was interrupted may clean up."""


class AttemptFailed(AssertionError):
    """An attempt failed, and not by its handler's word: its payload does not fit, its result cannot be kept, or its
    time was over."""


@dataclass(slots=True)
class Call:
    """What the handler did."""

    returned: Any = None
    raised: BaseException | None = None
    trace: TracebackType | None = None
    said: list[Progress | LogLine] = field(default_factory=list[Progress | LogLine])


@dataclass(frozen=True, slots=True)
class Turn:
    """One attempt that is over: what its handler did, and what becomes of the job."""

    claimed: Claimed
    call: Call
    ending: Ending

    @property
    def error(self) -> BaseException | None:
        """What a test has to hear of: all that went wrong and that the handler did not decide by a value."""
        raised, returned = self.call.raised, self.call.returned
        if raised is not None and not isinstance(raised, asyncio.CancelledError):
            return raised.with_traceback(self.call.trace)
        change = self.ending.change
        told = change.error or {}
        decided = isinstance(returned, Fail | Retry) and told.get("type") != "InvalidResult"
        if change.status is Status.COMPLETED or decided:
            return None
        return AttemptFailed(f"{told.get('type')}: {told.get('message')}")


class Turns:
    """A worker's slot in the event loop that is running. A `def` handler runs in a thread, as in a worker; one with
    `process=True` runs here as well, so that a test sees what it did. Where the attempts are not `of_jobs`, none is
    logged."""

    def __init__(
        self, handlers: Handlers, max_result_bytes: int, database: HandlerDatabase, *, of_jobs: bool
    ) -> None:
        watched = Handlers().merged(self._watched(handler) for handler in handlers)
        self._clock = SystemClock()
        self._database = database
        self._runner = Runner(
            watched,
            1,
            max_result_bytes,
            self._clock,
            self._ended,
            lambda: None,
            database=database,
            on_told=self._heard,
            of_jobs=of_jobs,
        )
        self._call = Call()
        self._over: asyncio.Future[Ending] | None = None

    async def __aenter__(self) -> Self:
        self._deadlines = asyncio.create_task(self._runner.enforce_deadlines())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner.slots.running:
            # The test itself was interrupted: nothing of it may go on in the next one.
            self._runner.end_all(Ended.BY_LEASE_LOSS)
            await self._runner.all_over(LET_GO_SECONDS)
        self._deadlines.cancel()
        await asyncio.wait([self._deadlines])
        await self._runner.close()
        self._database.close()

    async def take(self, claimed: Claimed, lane: Lane) -> Turn:
        self._call = call = Call()
        self._over = asyncio.get_running_loop().create_future()
        self._runner.accept(claimed, lane, self._clock.now())
        self._runner.start_waiting()
        return Turn(claimed, call, await self._over)

    def _heard(self, claimed: Claimed, told: Progress | LogLine) -> None:
        self._call.said.append(told)

    def _ended(self, ending: Ending) -> None:
        assert self._over is not None
        self._over.set_result(ending)

    def _watched(self, handler: Handler) -> Handler:
        """The handler, noting what it does in the call of its own turn: an attempt whose time was over may go on
        during the next one."""
        function = handler.function

        async def awaited(**arguments: Any) -> Any:
            __tracebackhide__ = True
            with _noted(self._call) as call:
                call.returned = await function(**arguments)
            return call.returned

        def called(**arguments: Any) -> Any:
            __tracebackhide__ = True
            with _noted(self._call) as call:
                call.returned = function(**arguments)
            return call.returned

        return replace(handler, function=awaited if handler.is_async else called)


@contextmanager
def _noted(call: Call) -> Generator[Call]:
    __tracebackhide__ = True
    try:
        yield call
    except BaseException as error:
        call.raised, call.trace = error, error.__traceback__
        raise
