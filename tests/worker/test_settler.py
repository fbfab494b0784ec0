"""Endings on their way to the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from jobyard.clock import ManualClock, SystemClock
from jobyard.domain import lifecycle
from jobyard.domain.lifecycle import Failed, Succeeded
from jobyard.ports import Clock
from jobyard.store import dispatch
from jobyard.store.dispatch import Claimed, Ending
from jobyard.worker import settler as settling
from jobyard.worker.settler import Settler
from worker.yard import Yard, until

Heard = list[tuple[int, bool]]


@asynccontextmanager
async def settler(yard: Yard, clock: Clock | None = None) -> AsyncIterator[tuple[Settler, Heard]]:
    heard: Heard = []
    made = Settler(
        yard.pool, yard.lanes, clock or SystemClock(), lambda ending, held: heard.append((ending.lease, held))
    )
    running = asyncio.create_task(made.run())
    yield made, heard
    running.cancel()


async def claimed(yard: Yard, count: int) -> list[tuple[Claimed, dispatch.Lane]]:
    await yard.add("t", count)
    worker = await dispatch.start_worker(yard.db, "test", ["t"], count, 60)
    (lane,) = await dispatch.lanes_of(yard.db, ["t"])
    return [(it, lane) for it in await dispatch.claim(yard.db, worker, [lane.id], [0], count, 60)]


def succeeded(attempt: tuple[Claimed, dispatch.Lane], result: str | None = None) -> Ending:
    it, lane = attempt
    return Ending(it.job, it.lease, lane.key, lifecycle.settle(it.standing(0), Succeeded(result), 0.5))


def failed(attempt: tuple[Claimed, dispatch.Lane]) -> Ending:
    it, lane = attempt
    return Ending(it.job, it.lease, lane.key, lifecycle.settle(it.standing(0), Failed({"type": "X"}), 0.5))


async def sizes(yard: Yard, kind: str) -> list[int]:
    rows = await yard.db.fetch(
        "SELECT cardinality(jobs) AS n FROM jobyard.event WHERE kind = $1 ORDER BY seq", kind
    )
    return [row["n"] for row in rows]


async def test_each_ending_is_told_once_though_a_part_of_its_batch_had_to_be_repeated(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_back: Callable[..., Any] = dispatch.hand_back
    broken = [OSError("the connection broke")]

    async def breaks_once(*arguments: Any) -> set[Any]:
        if broken:
            raise broken.pop()
        return await hand_back(*arguments)

    monkeypatch.setattr(dispatch, "hand_back", breaks_once)
    attempts = await claimed(yard, 4)
    async with settler(yard) as (made, heard):
        for attempt in attempts[:2]:
            made.add(succeeded(attempt))
        for attempt in attempts[2:]:
            made.add(failed(attempt))
        await made.flushed()
    assert sorted(heard) == [(attempt.lease, True) for attempt, _ in attempts]
    assert await yard.count("done") == 2
    assert await yard.count("scheduled") == 2


async def test_a_statement_carries_no_more_bytes_of_results_than_the_server_takes(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "SETTLE_BYTES", 1000)
    attempts = await claimed(yard, 7)
    async with settler(yard) as (made, _):
        for attempt in attempts[:6]:
            made.add(succeeded(attempt, '"%s"' % ("x" * 398)))
        made.add(succeeded(attempts[6], '"%s"' % ("x" * 5000)))
        await made.flushed()
    assert await sizes(yard, "completed") == [2, 2, 2, 1]


async def test_endings_that_come_fast_share_a_statement_and_those_that_come_slowly_do_not_wait(
    yard: Yard,
) -> None:
    clock = ManualClock()
    attempts = await claimed(yard, 9)

    def add(made: Settler, some: Sequence[tuple[Claimed, dispatch.Lane]]) -> None:
        for attempt in some:
            made.add(succeeded(attempt))

    async with settler(yard, clock) as (made, heard):
        add(made, attempts[:1])
        await until(lambda: len(heard) == 1, "a lone ending is written at once")
        add(made, attempts[1:6])
        await until(lambda: len(heard) == 6, "and so are those behind it")
        add(made, attempts[6:7])
        await until(lambda: clock.sleepers == 1, "after five at once the next waits a moment")
        add(made, attempts[7:])
        assert len(heard) == 6
        await clock.advance(0.01)
        await until(lambda: len(heard) == 9, "for company")
    assert await sizes(yard, "completed") == [1, 5, 3]
