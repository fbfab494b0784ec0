"""A time limit that costs next to nothing where it is kept, as on the hot path it nearly always is."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Patience:
    """`with patience:` raises TimeoutError inside of whatever is still at it after `seconds`.

    All that enter have the same limit, so they run out in the order in which they entered: one timer is enough for
    all of them, where `asyncio.timeout` would set one for each (5 of the 20 us of a create, twice).
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._running: dict[Attempt, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self) -> Attempt:
        return Attempt(self)

    def enter(self, attempt: Attempt) -> None:
        loop = asyncio.get_running_loop()
        self._running[attempt] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._end_overdue)

    def leave(self, attempt: Attempt) -> None:
        self._running.pop(attempt, None)

    def _end_overdue(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for attempt, deadline in list(self._running.items()):
            if deadline > loop.time():
                self._timer = loop.call_at(deadline, self._end_overdue)
                return
            del self._running[attempt]
            attempt.end()


class Attempt:
    """One use of a Patience."""

    __slots__ = ("_ended", "_patience", "_task")

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._ended = False

    def end(self) -> None:
        self._ended = True
        self._task.cancel()

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "there is nothing to cancel outside of a task"
        self._task = task
        self._patience.enter(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._patience.leave(self)
        # A cancellation from elsewhere goes on; ours ends here.
        if self._ended and self._task.uncancel() <= 0 and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error
