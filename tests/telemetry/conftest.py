from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from api.site import Site, serving
from jobyard.store.database import Connection, Pool
from jobyard.telemetry import metrics
from jobyard.telemetry.instruments import Counter, Gauge, Histogram, Kinds
from worker.yard import MakeBench, Yard, benches


@pytest.fixture
async def make_bench() -> AsyncIterator[MakeBench]:
    """Make a runner with these handlers by type."""
    async with benches() as make:
        yield make


@pytest.fixture
async def site(pool: Pool) -> AsyncIterator[Site]:
    async with serving(pool) as running:
        yield running


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
