"""F38: what a failing handler held is gone with its attempt, and needs no garbage collector for that."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobyard.config import Settings
from jobyard.main import child_options
from jobyard.worker.handlers import Handlers
from worker import heavy_jobs
from worker.yard import Yard

CHILDREN = replace(child_options(Settings(app="heavy_jobs")), folder=str(Path(__file__).parent))
SLOTS = 4


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    heavy_jobs.most[0] = 0
    yield
    gc.enable()


@pytest.mark.parametrize("jobs", [200, pytest.param(10_000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("handler", [heavy_jobs.fail_in_the_loop, heavy_jobs.fail_in_a_thread])
async def test_jobs_that_fail_with_a_megabyte_each_leave_nothing_of_it(
    yard: Yard, jobs: int, handler: object
) -> None:
    await yard.add(count=jobs, max_attempts=1)
    async with yard.working({"t": handler}, concurrency=SLOTS):
        await yard.all_ended(seconds=300)
    assert 0 < heavy_jobs.most[0] <= 2 * SLOTS
    assert not len(heavy_jobs.held)


async def test_jobs_that_fail_so_in_a_child_leave_nothing_there(yard: Yard) -> None:
    handlers = Handlers()
    for function in (heavy_jobs.fail_in_a_child, heavy_jobs.count_in_a_child):
        handlers.add(function.__name__, function, process=True)
    await yard.add("fail_in_a_child", count=50, max_attempts=1)
    (count,) = await yard.add("count_in_a_child", priority=1)
    async with yard.working(handlers, children=CHILDREN, concurrency=1):
        await yard.all_ended()
    assert (await yard.end_of(count))["result"] == "0"
    assert (
        await yard.db.fetchval("SELECT count(*) FROM jobyard.done WHERE error->>'type' = 'ValueError'") == 50
    )
