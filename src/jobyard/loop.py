"""The one loop that everything repeated shares: step, wait, back off on trouble, stop."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from jobyard import telemetry
from jobyard.ports import Clock
from jobyard.telemetry import LogEvent, metrics

FIRST_BACKOFF_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 5.0


def backoff(failures: int) -> float:
    """Seconds before the next try after so many failures in a row, with jitter: a fleet must not return as one."""
    return min(
        LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 10)
    ) * random.uniform(0.5, 1)


def end_if_cancelled() -> None:
    """For whoever outlives any error: a driver may have turned this task's cancellation into an error of its own."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel it and wait for its end, however it ends."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task


@dataclass(slots=True)
class Loop:
    """Calls `step` again and again. `step` answers how many seconds to wait before the next one.

    A step that raises is logged once, then repeated with growing pauses until it works again: no fault of the
    database or the network ends a loop.
    """

    name: str
    step: Callable[[], Awaitable[float]]
    clock: Clock
    failures: int = 0
    last_error: str | None = None

    async def run(self) -> None:
        while True:
            await self.clock.sleep(await self._step_or_back_off())

    async def _step_or_back_off(self) -> float:
        try:
            pause = await self.step()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            end_if_cancelled()
            self.failures += 1
            metrics.loop_failed(self.name)
            self.last_error = f"{type(error).__name__}: {error}"
            if self.failures == 1:
                telemetry.warning(LogEvent.LOOP_FAILED, loop=self.name, error=self.last_error)
            return backoff(self.failures)
        if self.failures:
            telemetry.info(LogEvent.LOOP_RECOVERED, loop=self.name, after_failures=self.failures)
            self.failures, self.last_error = 0, None
        metrics.loop_succeeded(self.name)
        return pause

    @property
    def healthy(self) -> bool:
        return self.failures == 0
