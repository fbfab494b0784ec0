from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from jobyard.clock import ManualClock, SystemClock
from jobyard.loop import FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS, Loop, backoff

Start = Callable[[Callable[[], Awaitable[float]]], Awaitable[Loop]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def start(clock: ManualClock) -> AsyncIterator[Start]:
    """Run a loop with this step until the test ends."""
    tasks: list[asyncio.Task[None]] = []

    async def start(step: Callable[[], Awaitable[float]]) -> Loop:
        loop = Loop("test", step, clock)
        tasks.append(asyncio.create_task(loop.run()))
        await clock.advance(0)
        return loop

    yield start
    for task in tasks:
        assert not task.done()
        task.cancel()


async def test_it_waits_between_steps_as_long_as_the_step_said(clock: ManualClock, start: Start) -> None:
    pauses = [2.0, 5.0, 1.0, 100.0]
    steps: list[float] = []

    async def step() -> float:
        steps.append(clock.now())
        return pauses[len(steps) - 1]

    await start(step)
    for _ in range(90):
        await clock.advance(0.1)
    assert [round(at) for at in steps] == [0, 2, 7, 8]


async def test_a_step_that_raises_is_repeated_with_growing_pauses_until_it_works(
    clock: ManualClock, start: Start
) -> None:
    broken = True
    steps: list[float] = []

    async def step() -> float:
        steps.append(clock.now())
        if broken:
            raise OSError("gone")
        return 1000.0

    loop = await start(step)
    for _ in range(400):
        await clock.advance(0.1)
    assert not loop.healthy
    assert loop.last_error == "OSError: gone"
    gaps = [later - earlier for earlier, later in itertools.pairwise(steps)]
    assert max(gaps[:3]) < 1
    assert all(LONGEST_BACKOFF_SECONDS / 2 <= gap < LONGEST_BACKOFF_SECONDS + 0.2 for gap in gaps[7:])
    broken = False
    for _ in range(60):
        await clock.advance(0.1)
    assert loop.healthy
    assert loop.last_error is None


async def test_a_loop_that_is_cancelled_ends_whether_it_waits_or_works(clock: ManualClock) -> None:
    async def work_for_ever() -> float:
        await asyncio.Event().wait()
        return 0.0

    async def wait_for_ever() -> float:
        return 1e9

    for step in (work_for_ever, wait_for_ever):
        task = asyncio.create_task(Loop("test", step, clock).run())
        await clock.advance(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_backoff_grows_is_bounded_and_spread() -> None:
    for failures in (1, 2, 3, 5, 10, 10_000):
        full = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 20))
        pauses = {backoff(failures) for _ in range(200)}
        assert all(full / 2 <= pause <= full for pause in pauses)
        assert len(pauses) > 100, "a fleet must not return as one"


async def test_a_manual_clock_wakes_those_whose_time_has_come_in_its_order(clock: ManualClock) -> None:
    woken: list[float] = []

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    tasks = [asyncio.create_task(sleep(seconds)) for seconds in (3.0, 1.0, 2.0, 9.0)]
    await clock.advance(0)
    assert clock.sleepers == 4
    await clock.advance(3)
    assert woken == [1.0, 2.0, 3.0]
    assert (clock.sleepers, clock.now()) == (1, 3.0)
    tasks[-1].cancel()
    await clock.advance(100)
    assert woken == [1.0, 2.0, 3.0]


async def test_the_system_clock_passes_time() -> None:
    clock = SystemClock()
    before = clock.now()
    await clock.sleep(0.01)
    assert clock.now() - before >= 0.009
