"""Leases: kept by the heartbeat, lost with the worker's row, and found again when an answer was lost."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from jobyard import Context
from jobyard.store import dispatch, upkeep
from jobyard.store.database import connect
from jobyard.store.lanes import Lanes
from worker.yard import DeafBus, Yard, until


async def test_the_heartbeat_goes_on_while_a_handler_blocks_the_main_loop(yard: Yard) -> None:
    swept: list[upkeep.Swept] = []
    over = threading.Event()

    async def sweep() -> None:
        connection = await connect(yard.url, hot=True, name="sweeper")
        lanes = Lanes()
        while not over.wait(0.1):
            swept.append(await upkeep.sweep(connection, lanes))
        await connection.close()

    async def block() -> str:
        time.sleep(2.5)  # noqa: ASYNC251 - that is the fault
        return "done"

    sweeper = threading.Thread(target=lambda: asyncio.run(sweep()))
    async with yard.working({"t": block}, lease=1.0) as working:
        id = await working.started()
        sweeper.start()
        try:
            (job,) = await yard.add()
            done = await yard.end_of(job)
        finally:
            over.set()
            sweeper.join()
        assert (done["status"], done["attempt"], done["worker"]) == ("completed", 1, id)
        assert working.worker.id == id
    assert len(swept) > 10
    assert not any(each.workers or each.attempts for each in swept)


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_worker_whose_row_is_gone_drops_its_leases_and_its_late_results(
    yard: Yard, kind: str
) -> None:
    running, go_on = threading.Event(), threading.Event()
    starts: list[int] = []

    async def late(ctx: Context) -> str:
        starts.append(ctx.attempt)
        running.set()
        if len(starts) == 1:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return "late"
        return "second"

    def late_in_a_thread(ctx: Context) -> str:
        starts.append(ctx.attempt)
        running.set()
        if len(starts) == 1:
            go_on.wait(30)
            return "late"
        return "second"

    async with yard.working({"t": late if kind == "async" else late_in_a_thread}, lease=1.0) as working:
        first_id = await working.started()
        (job,) = await yard.add()
        await until(running.is_set, "it runs")
        await yard.db.execute("DELETE FROM jobyard.worker")
        await until(lambda: working.worker.id not in (0, first_id), "it has a new id")
        go_on.set()
        await until(
            lambda: yard.db.fetchval("SELECT id = $1 FROM jobyard.worker", working.worker.id),
            "the row is there",
        )
        assert await yard.count("done") == 0
        assert (await upkeep.sweep(yard.db, yard.lanes)).attempts == 1
        done = await yard.end_of(job)
        assert (done["result"], done["attempt"], done["worker"]) == ('"second"', 1, working.worker.id)
    assert starts == [1, 1]
    assert await yard.tries(job) == [(1, "orphan")]


async def test_attempts_that_wait_for_a_slot_go_with_the_lost_row_too(yard: Yard) -> None:
    started: list[int] = []

    async def handle(payload: str) -> None:
        if payload == "slow":
            started.append(1)
            await asyncio.sleep(60)

    await yard.add(count=600, payload="fast")
    await yard.add(count=30, payload="slow")
    async with yard.working({"t": handle}, concurrency=1, lease=1.0, wakeups=DeafBus(), grace=0.1) as working:
        id = await working.started()
        await until(lambda: started, "a slow one runs")
        await until(
            lambda: yard.db.fetchval("SELECT count(*) > 1 FROM jobyard.active"), "some are claimed ahead"
        )
        await yard.db.execute("DELETE FROM jobyard.worker")
        await until(lambda: working.worker.id not in (0, id), "it has a new id")
        await upkeep.sweep(yard.db, yard.lanes)
        await until(lambda: len(started) > 1, "it claims and runs under the new id")
        rows = await yard.db.fetch("SELECT DISTINCT worker FROM jobyard.active ORDER BY worker")
        assert [row["worker"] for row in rows] == [working.worker.id]


async def test_attempts_whose_claim_was_never_answered_are_handed_back_and_run(yard: Yard) -> None:
    async def handle() -> str:
        return "run"

    async with yard.working({"t": handle}, lease=1.0) as working:
        id = await working.started()
        async with yard.pool.acquire() as connection, connection.transaction():
            # The worker cannot see them before they are claimed in its name.
            jobs = await yard.add(type="t", queue="unheard", count=3, delay_seconds=3600.0)
            await connection.execute(
                "WITH gone AS (DELETE FROM jobyard.scheduled RETURNING *)"
                " INSERT INTO jobyard.active (job, lease, worker, deadline, tenant, lane, run, attempt, crashes)"
                " SELECT job, row_number() OVER () + 900000, $1, now() + interval '1h', 1, lane, run, 1, 0 FROM gone",
                id,
            )
        for job in jobs:
            done = await yard.end_of(job)
            assert (done["status"], done["attempt"], done["worker"]) == ("completed", 1, id)
            assert await yard.tries(job) == [(1, "release")]


async def test_a_claim_that_is_cut_off_costs_no_attempt(yard: Yard) -> None:
    async def handle() -> None: ...

    async with yard.working({"t": handle}) as working:
        await working.idle(yard)
        async with yard.held("active"):
            (job,) = await yard.add()
            await until(yard.blocked, "the claim waits")
            assert await yard.terminate_sessions("jobyard worker")
        done = await yard.end_of(job)
        assert (done["status"], done["attempt"]) == ("completed", 1)
        assert await yard.tries(job) == []


async def test_when_all_its_sessions_are_cut_again_and_again_nothing_is_lost_or_charged(yard: Yard) -> None:
    async def handle() -> None:
        await asyncio.sleep(0.002)

    await yard.add(count=800)
    async with yard.working({"t": handle}, concurrency=8, lease=5.0) as working:
        id = await working.started()
        for share in (100, 300, 500):
            await until(
                lambda share=share: yard.db.fetchval("SELECT count(*) >= $1 FROM jobyard.done", share),
                "it goes on",
            )
            await yard.terminate_sessions("jobyard%")
        await yard.all_ended()
        rows = await yard.db.fetch("SELECT status, attempt, count(*) FROM jobyard.done GROUP BY 1, 2")
        assert [tuple(row) for row in rows] == [("completed", 1, 800)]
        assert working.worker.id == id
    assert await yard.db.fetchval("SELECT count(*) FROM jobyard.attempt WHERE outcome <> 'release'") == 0


async def test_a_lane_made_while_the_database_was_out_of_reach_is_learnt_on_its_return(yard: Yard) -> None:
    """What the worker meant to look at is not forgotten with the look that failed."""

    async def handle() -> None: ...

    async with yard.working({"t": handle}) as working:
        await working.idle(yard)
        async with yard.pool.acquire() as connection, connection.transaction():
            await connection.execute("LOCK TABLE jobyard.lane IN ACCESS EXCLUSIVE MODE")
            await until(yard.blocked, "the worker waits")
            await yard.terminate_sessions("jobyard%")
        (job,) = await yard.add(queue="new")
        await yard.end_of(job)


async def test_trouble_that_is_not_the_connections_never_ends_the_worker(yard: Yard) -> None:
    """Such as a full disk, a cancelled statement, a failing trigger: wait, and try again."""
    ends: list[Any] = []

    async def handle(payload: str) -> None:
        ends.append(payload)
        if payload == "retry":
            raise ValueError

    await yard.db.execute(
        """
        CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full', MESSAGE = 'no space left'; END $$;
        CREATE TRIGGER full_disk BEFORE INSERT ON jobyard.active EXECUTE FUNCTION full_disk();
        CREATE TRIGGER full_disk BEFORE INSERT ON jobyard.done EXECUTE FUNCTION full_disk();
        CREATE TRIGGER full_disk BEFORE INSERT ON jobyard.attempt EXECUTE FUNCTION full_disk();
        """
    )
    async with yard.working({"t": handle}) as working:
        (good,) = await yard.add(payload="good")
        (retry,) = await yard.add(payload="retry", max_attempts=2)
        await until(lambda: working.worker.claim_failures, "the claim fails")
        await yard.db.execute("DROP TRIGGER full_disk ON jobyard.active")
        await until(lambda: len(ends) == 2, "both run")
        await until(lambda: not working.worker.ready, "the settle fails")
        await yard.db.execute(
            "DROP TRIGGER full_disk ON jobyard.done; DROP TRIGGER full_disk ON jobyard.attempt"
        )
        assert (await yard.end_of(good))["status"] == "completed"
        await until(lambda: yard.tries(retry), "the retry is on record")
        assert not working.task.done()


async def test_it_names_each_part_that_does_not_work(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handle() -> None: ...

    async def not_beating(*_: object) -> bool:
        raise ConnectionError

    def all_but(*parts: str) -> dict[str, bool]:
        return {part: part not in parts for part in ("claim", "settle", "reports", "heartbeat", "listener")}

    async with yard.working({"t": handle}, lease=1.0) as working:
        worker = working.worker
        await until(lambda: worker.parts == all_but(), "all works")
        with monkeypatch.context() as patch:
            patch.setattr(dispatch, "beat", not_beating)
            await until(lambda: not worker.parts["heartbeat"], "the missing beat is told")
            assert not worker.ready
        await until(lambda: worker.ready, "it beats again")
        await yard.db.execute("ALTER TABLE jobyard.done RENAME TO away")
        await yard.add()
        await until(lambda: not worker.parts["settle"], "what cannot be settled is told")
        await yard.db.execute("ALTER TABLE jobyard.away RENAME TO done")
        await until(lambda: worker.parts == all_but(), "all works again")
    assert not worker.ready


async def test_a_worker_that_is_not_woken_is_ready_and_says_so(yard: Yard) -> None:
    async def handle() -> None: ...

    async with yard.working({"t": handle}, wakeups=DeafBus()) as working:
        await until(lambda: working.worker.ready, "it is ready")
        assert not working.worker.parts["listener"]
