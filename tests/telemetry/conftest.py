from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from jobyard.clock import SystemClock
from jobyard.store.database import Connection, Pool
from jobyard.store.dispatch import Ending
from jobyard.telemetry import metrics
from jobyard.telemetry.instruments import Counter, Gauge, Histogram, Kinds
from jobyard.worker.runner import Runner
from worker.yard import MAX_RESULT_BYTES, Bench, MakeBench, Yard, handlers


@pytest.fixture
async def make_bench() -> AsyncIterator[MakeBench]:
    """Make a runner with these handlers by type."""
    made: list[tuple[Bench, asyncio.Task[None]]] = []

    def make(functions: dict[str, Callable[..., Any]], concurrency: int = 4) -> Bench:
        endings: list[Ending] = []
        runner = Runner(
            handlers(functions), concurrency, MAX_RESULT_BYTES, SystemClock(), endings.append, lambda: None
        )
        bench = Bench(runner, endings)
        made.append((bench, asyncio.create_task(runner.enforce_deadlines())))
        return bench

    yield make
    for bench, deadlines in made:
        deadlines.cancel()
        bench.runner.close()


@pytest.fixture
async def yard(database: str, connection: Connection, pool: Pool) -> Yard:
    return Yard(database, connection, pool)


@pytest.fixture
def zeroed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics as in a process that has just started; what other tests counted is out of the way meanwhile."""
    monkeypatch.setattr(metrics, "kinds", Kinds(metrics.MOST_KINDS))
    for metric in metrics.METRICS:
        fresh = type(metric)(metric.name, metric.about, metric.labels)
        match metric:
            case Counter():
                monkeypatch.setattr(metric, "counts", fresh.counts)
            case Gauge():
                monkeypatch.setattr(metric, "values", fresh.values)
            case Histogram():
                monkeypatch.setattr(metric, "tallies", {})
