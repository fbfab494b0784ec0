"""One timer for all who have the same time limit."""

from __future__ import annotations

import asyncio

import pytest

from jobyard.api.patience import Patience


async def test_what_takes_longer_is_ended_and_what_does_not_is_left_alone():
    patience = Patience(0.05)

    async def work(seconds: float) -> str:
        with patience():
            await asyncio.sleep(seconds)
            return "done"

    slow, quick, also_slow = await asyncio.gather(work(30), work(0), work(30), return_exceptions=True)
    assert (type(slow), quick, type(also_slow)) == (TimeoutError, "done", TimeoutError)


async def test_whoever_enters_later_has_the_whole_time_too():
    patience = Patience(0.2)
    loop = asyncio.get_running_loop()
    for _ in range(2):
        started = loop.time()
        with pytest.raises(TimeoutError), patience():
            await asyncio.sleep(30)
        assert loop.time() - started >= 0.19


async def test_the_one_timer_goes_on_to_the_next_in_line():
    patience = Patience(0.1)

    async def work(before: float) -> None:
        await asyncio.sleep(before)
        with patience():
            await asyncio.sleep(30)

    async with asyncio.timeout(5):
        ended = await asyncio.gather(*(work(0.03 * number) for number in range(5)), return_exceptions=True)
    assert {type(error) for error in ended} == {TimeoutError}


async def test_a_cancellation_from_elsewhere_stays_one():
    patience = Patience(30)

    async def work() -> None:
        with patience():
            await asyncio.sleep(30)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_ones_own_is_not_taken_for_the_limit():
    patience = Patience(30)
    with pytest.raises(ZeroDivisionError), patience():
        _ = 1 // 0


async def test_a_task_may_go_on_after_its_time_was_up():
    patience = Patience(0.02)
    with pytest.raises(TimeoutError), patience():
        await asyncio.sleep(30)
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr] - this runs in a task
    await asyncio.sleep(0)
