"""SIGTERM: nothing new is claimed, what runs may end within the grace, the rest goes back unburnt."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from worker.yard import Yard, until

LAST_SECONDS = 1.0
"""A drain ends within the grace and this; tested with twice the bound."""


async def released(yard: Yard) -> int:
    """How many jobs were handed back; each is in line again as if it had never been claimed."""
    rows = await yard.db.fetch(
        "SELECT a.attempt, a.outcome, r.attempt AS counted, l.suspect FROM jobyard.attempt a"
        " JOIN jobyard.ready r ON r.job = a.job JOIN jobyard.lane l ON l.id = r.lane"
    )
    assert all(tuple(row) == (1, "release", 0, 0) for row in rows), rows
    assert await yard.count("active") == 0
    assert await yard.count("worker") == 0
    return len(rows)


async def test_jobs_that_run_and_jobs_claimed_ahead_go_back_uncharged(yard: Yard) -> None:
    started: list[int] = []

    async def handle(payload: str) -> None:
        if payload == "slow":
            started.append(1)
            await asyncio.sleep(60)

    await yard.add(count=600, payload="fast")
    await yard.add(count=50, payload="slow")
    async with yard.working({"t": handle}, concurrency=2, grace=0.2) as working:
        await until(lambda: len(started) == 2, "two run")
        await until(
            lambda: yard.db.fetchval("SELECT count(*) > 2 FROM jobyard.active"), "some are claimed ahead"
        )
        seconds = await working.drain()
    assert seconds < 2 * (0.2 + LAST_SECONDS)
    assert await released(yard) > 2
    assert await yard.count("ready") == 50
    assert len(started) == 2


async def test_a_job_that_ends_within_the_grace_is_completed(yard: Yard) -> None:
    running, go_on = asyncio.Event(), asyncio.Event()

    async def handle() -> str:
        running.set()
        await go_on.wait()
        return "in time"

    (job,) = await yard.add()
    async with yard.working({"t": handle}, grace=10) as working:
        await running.wait()
        working.worker.stop()
        (late,) = await yard.add()
        go_on.set()
        assert (await yard.end_of(job))["result"] == '"in time"'
    assert await yard.status(late) == "pending"
    assert await yard.tries(late) == []


async def test_an_idle_worker_leaves_at_once(yard: Yard) -> None:
    async def handle() -> None: ...

    async with yard.working({"t": handle}, grace=8) as working:
        await working.idle(yard)
        assert await working.drain() < 2 * LAST_SECONDS
    assert await yard.count("worker") == 0
    assert not working.worker.must_exit


async def test_a_thread_that_blocks_cannot_hold_the_worker(yard: Yard) -> None:
    running, let_go = threading.Event(), threading.Event()

    def block() -> None:
        running.set()
        let_go.wait(30)

    await yard.add()
    try:
        async with yard.working({"t": block}, grace=0.2) as working:
            await until(running.is_set, "it runs")
            assert await working.drain() < 2 * (0.2 + LAST_SECONDS)
            assert await released(yard) == 1
            assert working.worker.must_exit
            assert working.worker.exit_code == 0
    finally:
        let_go.set()


async def test_a_job_that_ignores_its_cancellation_cannot_hold_the_worker(yard: Yard) -> None:
    running, let_go = asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        running.set()
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    await yard.add()
    async with yard.working({"t": stubborn}, grace=0.2) as working:
        await running.wait()
        assert await working.drain() < 2 * (0.2 + LAST_SECONDS)
        assert await released(yard) == 1
        # asyncio would wait for it at the loop's end, for ever.
        assert working.worker.must_exit
        let_go.set()


async def test_a_cancelled_job_that_fails_on_its_way_out_is_released_and_one_that_succeeds_is_completed(
    yard: Yard,
) -> None:
    running: list[str] = []

    async def handle(payload: str) -> str:
        running.append(payload)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if payload == "fail":
                raise ValueError("interrupted") from None
        return "done all the same"

    (fail,) = await yard.add(payload="fail")
    (succeed,) = await yard.add(payload="succeed")
    async with yard.working({"t": handle}, grace=0.1) as working:
        await until(lambda: len(running) == 2, "both run")
        await working.drain()
    assert await yard.tries(fail) == [(1, "release")]
    assert (await yard.end_of(succeed))["result"] == '"done all the same"'


async def test_what_a_claim_brings_during_the_drain_is_handed_back_and_never_started(yard: Yard) -> None:
    started: list[str] = []
    go_on = asyncio.Event()

    async def handle(payload: str) -> None:
        started.append(payload)
        await go_on.wait()

    await yard.add(payload="first")
    async with yard.working({"t": handle}, grace=10) as working:
        await until(lambda: started, "the first runs")
        await working.idle(yard)
        async with yard.held("active"):
            late = await yard.add(count=10, payload="late")
            await until(yard.blocked, "the claim waits")
            working.worker.stop()
            await until(lambda: not working.worker.ready, "it drains")
        await until(lambda: yard.count("attempt"), "what was claimed is on record")
        go_on.set()
        await working.drain()
    assert started == ["first"]
    tries = [await yard.tries(job) for job in late]
    assert [(1, "release")] in tries
    assert all(each in ([], [(1, "release")]) for each in tries)
    assert [await yard.status(job) for job in late] == ["pending"] * 10


async def test_a_worker_that_is_stopped_before_it_reaches_the_database_ends(yard: Yard) -> None:
    async def handle() -> None: ...

    async with yard.held("worker"), yard.working({"t": handle}, grace=0.2) as working:
        await until(yard.blocked, "it waits for its id")
        assert await working.drain() < 2 * (0.2 + LAST_SECONDS)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
async def test_a_database_that_froze_cannot_hold_the_worker(yard: Yard, busy: bool) -> None:
    go_on = asyncio.Event()
    ended: list[int] = []

    async def handle() -> None:
        await go_on.wait()
        ended.append(1)

    async with yard.working({"t": handle}, grace=0.5, lease=3) as working:
        await working.idle(yard)
        if busy:
            await yard.add()
            await until(lambda: yard.count("active"), "it runs")
        frozen = await yard.db.fetch(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'jobyard%'"
        )
        try:
            for row in frozen:
                os.kill(row["pid"], signal.SIGSTOP)
            go_on.set()
            await until(lambda: len(ended) == busy, "the job ended")
            assert await working.drain() < 2 * (0.5 + LAST_SECONDS)
        finally:
            for row in frozen:
                os.kill(row["pid"], signal.SIGCONT)
