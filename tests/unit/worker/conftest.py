from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from jobyard.clock import SystemClock
from jobyard.store.dispatch import Ending
from jobyard.worker.runner import Runner
from worker.yard import MAX_RESULT_BYTES, Bench, MakeBench, handlers


@pytest.fixture
async def bench() -> AsyncIterator[MakeBench]:
    """Make a runner with this handler for type `t`."""
    made: list[tuple[Bench, asyncio.Task[None]]] = []

    def make(function: Callable[..., Any], concurrency: int = 4) -> Bench:
        endings: list[Ending] = []
        runner = Runner(
            handlers({"t": function}),
            concurrency,
            MAX_RESULT_BYTES,
            SystemClock(),
            endings.append,
            lambda: None,
        )
        bench = Bench(runner, endings)
        made.append((bench, asyncio.create_task(runner.enforce_deadlines())))
        return bench

    yield make
    for bench, deadlines in made:
        deadlines.cancel()
        bench.runner.close()
