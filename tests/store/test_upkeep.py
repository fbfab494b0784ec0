"""What maintainers do to keep jobs moving: promote what is due, and sweep up after dead workers."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from jobyard.domain.lifecycle import Cause, Retry, Succeeded
from jobyard.domain.retry import Backoff
from jobyard.store import dispatch, upkeep
from jobyard.store.lanes import Lanes
from store.conftest import Wakes
from store.scene import LEASE, Scene, ending, until

NOTHING = upkeep.Swept([], [])
GOES_AT_ONCE = Backoff(0.0, 0.0)


async def sweep(scene: Scene) -> upkeep.Swept:
    return await upkeep.sweep(scene.db, scene.lanes)


# Due jobs


async def test_what_is_due_becomes_ready_and_the_rest_waits(scene: Scene):
    (due,), (later,) = await scene.add(delay_seconds=60.0), await scene.add(delay_seconds=3600.0)
    assert await upkeep.promote(scene.db) == 0
    assert await upkeep.promote(scene.db, datetime.now(UTC) + timedelta(minutes=30)) == 1
    assert (await scene.tables_of(due), await scene.tables_of(later)) == (["ready"], ["scheduled"])


async def test_what_was_due_first_runs_first(scene: Scene):
    jobs = [(await scene.add(delay_seconds=seconds))[0] for seconds in (30.0, 10.0, 20.0)]
    await upkeep.promote(scene.db, datetime.now(UTC) + timedelta(minutes=1))
    claimed = await scene.claim(await scene.worker())
    assert [attempt.job for attempt in claimed] == [jobs[1], jobs[2], jobs[0]]


async def test_a_retry_keeps_its_count_and_its_crashes_when_it_comes_due(scene: Scene):
    await scene.add()
    attempt = await scene.claim_one()
    end = ending(attempt, Retry(after=60.0))
    charged = end._replace(change=end.change._replace(crashes=2))
    await dispatch.hand_back(scene.db, scene.lanes, [charged])
    await upkeep.promote(scene.db, datetime.now(UTC) + timedelta(minutes=2))
    again = await scene.claim_one()
    assert (again.attempt, again.crashes) == (2, 2)


async def test_many_due_jobs_are_promoted_by_batches(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upkeep, "PROMOTE_ROWS", 10)
    await scene.add(25, delay_seconds=1.0)
    later = datetime.now(UTC) + timedelta(minutes=1)
    assert [await upkeep.promote(scene.db, later) for _ in range(4)] == [10, 10, 5, 0]


async def test_maintainers_at_once_promote_each_job_once(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upkeep, "PROMOTE_ROWS", 20)
    await scene.add(200, delay_seconds=1.0)
    later = datetime.now(UTC) + timedelta(minutes=1)

    async def maintain() -> int:
        async with scene.pool.acquire() as connection:
            return sum([await upkeep.promote(connection, later) for _ in range(10)])

    assert sum(await asyncio.gather(*(maintain() for _ in range(4)))) == await scene.count("ready") == 200


async def test_the_wait_for_the_next_due_job_is_told_in_seconds(scene: Scene):
    assert await upkeep.seconds_until_due(scene.db) is None
    await scene.add(delay_seconds=60.0)
    await scene.add(delay_seconds=30.0)
    waits = await upkeep.seconds_until_due(scene.db)
    assert waits is not None
    assert 20 < waits <= 30


async def test_a_promoted_job_wakes_an_idle_worker(scene: Scene, wakes: Wakes):
    await scene.add(delay_seconds=60.0)
    worker = await scene.worker()
    await dispatch.set_idle(scene.db, worker, True)
    await upkeep.promote(scene.db, datetime.now(UTC) + timedelta(minutes=2))
    assert (await wakes())[1:] == [("1", str(worker))]


# Sweep


async def test_the_attempts_of_a_dead_worker_go_back_as_suspects_uncharged(scene: Scene):
    jobs = await scene.add(3)
    worker = await scene.worker(name="w-1")
    await scene.claim(worker, 2)
    await scene.expire(worker)
    swept = await sweep(scene)
    assert (swept.workers, swept.causes) == ([(worker, "w-1")], {Cause.ORPHAN: 2})
    assert {(lane.queue, lane.type) for lane, _ in swept.ways} == {("default", "email")}
    assert [await scene.standing_of(job) for job in jobs] == [("pending", None, 0)] * 3
    assert [await scene.level(job) for job in jobs] == [1, 1, 0]
    assert await scene.events(["released"]) == [("released", 2)]
    kept = await scene.db.fetch("SELECT outcome, attempt, worker, error FROM jobyard.attempt")
    assert {(row["outcome"], row["attempt"], row["worker"]) for row in kept} == {("orphan", 1, worker)}
    assert json.loads(kept[0]["error"])["type"] == "Orphan"
    assert await sweep(scene) == NOTHING


async def test_a_poison_job_climbs_the_levels_until_it_fails_as_crashed(scene: Scene):
    (job,) = await scene.add(backoff=GOES_AT_ONCE)
    climbed = list[tuple[dict[Cause, int], int]]()
    for _ in range(4):
        await scene.claim_one(worker := await scene.worker())
        await scene.expire(worker)
        climbed.append(((await sweep(scene)).causes, await scene.level(job)))
    assert climbed == [
        ({Cause.ORPHAN: 1}, 1),
        ({Cause.ORPHAN: 1}, 2),
        ({Cause.CRASH: 1}, 2),
        ({Cause.CRASH: 1}, 2),
    ]
    attempt = await scene.claim_one(worker := await scene.worker())
    assert (attempt.attempt, attempt.crashes) == (1, 2)
    await scene.expire(worker)
    assert (await sweep(scene)).causes == {Cause.CRASHED: 1}
    assert (await scene.tables_of(job), await scene.standing_of(job)) == (["done"], ("failed", "crashed", 1))
    outcomes = await scene.db.fetch("SELECT outcome FROM jobyard.attempt ORDER BY lease")
    assert [row["outcome"] for row in outcomes] == ["orphan", "orphan", "crash", "crash"]


async def test_a_charged_crash_waits_by_its_backoff(scene: Scene):
    (job,) = await scene.add(backoff=Backoff(3600.0, 3600.0))
    for _ in range(3):
        await scene.claim_one(worker := await scene.worker())
        await scene.expire(worker)
        await sweep(scene)
    assert await scene.tables_of(job) == ["scheduled"]
    assert await scene.events(["retry_scheduled"]) == [("retry_scheduled", 1)]


async def test_an_attempt_past_its_deadline_times_out_under_a_live_worker(scene: Scene):
    late, live = await scene.add(2, backoff=GOES_AT_ONCE)
    worker = await scene.worker()
    await scene.claim(worker)
    await scene.db.execute("UPDATE jobyard.active SET deadline = now() WHERE job = $1", late)
    swept = await sweep(scene)
    assert (swept.workers, swept.causes) == ([], {Cause.RETRY: 1})
    assert (await scene.standing_of(late), await scene.level(late)) == (("pending", None, 1), 0)
    assert await scene.tables_of(live) == ["active"]
    error = await scene.db.fetchval("SELECT error FROM jobyard.attempt")
    assert json.loads(error) == {"type": "Timeout", "message": "the attempt ran longer than 3600 s"}


async def test_the_last_attempt_past_its_deadline_fails_the_job_as_timeout(scene: Scene):
    (job,) = await scene.add(max_attempts=1)
    await scene.claim_one()
    await scene.db.execute("UPDATE jobyard.active SET deadline = now()")
    assert (await sweep(scene)).causes == {Cause.TIMEOUT: 1}
    assert await scene.standing_of(job) == ("failed", "timeout", 1)


async def test_what_a_live_worker_runs_is_left_alone(scene: Scene):
    jobs = await scene.add(3)
    await scene.claim(await scene.worker(), 2)
    assert await sweep(scene) == NOTHING
    assert [await scene.tables_of(job) for job in jobs] == [["active"], ["active"], ["ready"]]


async def test_a_worker_that_left_in_order_leaves_nothing_to_sweep(scene: Scene):
    await scene.add_finished(2)
    await dispatch.stop_worker(scene.db, 1)
    assert await sweep(scene) == NOTHING


async def test_an_attempt_left_behind_by_a_worker_that_left_is_taken_back(scene: Scene):
    (job,) = await scene.add()
    await scene.claim_one(worker := await scene.worker())
    await dispatch.stop_worker(scene.db, worker)
    assert (await sweep(scene)).causes == {Cause.ORPHAN: 1}
    assert await scene.tables_of(job) == ["ready"]


async def test_the_result_of_a_swept_attempt_is_dropped(scene: Scene):
    (job,) = await scene.add()
    attempt = await scene.claim_one(worker := await scene.worker())
    await scene.expire(worker)
    await sweep(scene)
    assert await dispatch.settle(scene.db, [ending(attempt, Succeeded())]) == set()
    assert await scene.tables_of(job) == ["ready"]


async def test_what_a_sweep_does_not_reach_the_next_one_does(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upkeep, "SWEEP_ROWS", 10)
    await scene.add(25)
    worker = await scene.worker()
    await scene.claim(worker)
    await scene.expire(worker)
    assert [(await sweep(scene)).attempts for _ in range(4)] == [10, 10, 5, 0]


async def test_maintainers_that_sweep_at_once_take_each_attempt_back_once(scene: Scene):
    await scene.add(200)
    worker = await scene.worker()
    await scene.claim(worker)
    await scene.expire(worker)

    async def maintain() -> int:
        async with scene.pool.acquire() as connection:
            return (await upkeep.sweep(connection, Lanes())).attempts

    assert sum(await asyncio.gather(*(maintain() for _ in range(4)))) + (await sweep(scene)).attempts == 200
    assert await scene.count("ready") == await scene.count("attempt") == 200


async def test_a_sweep_that_meets_a_claim_half_way_takes_back_all_of_the_worker_next_time(scene: Scene):
    """The claim has locked its worker's row, and the row expires before the claim commits."""
    held, coming = await scene.add(2)
    worker = await scene.worker()
    await scene.claim(worker, 1)
    async with scene.pool.acquire() as other, other.transaction():
        lanes = await scene.lane_ids()
        await dispatch.claim(other, worker, lanes, [0], 1, LEASE)
        # Whether the row is passed over or waited for, the sweep must not miss what this claim is about to hold.
        later = asyncio.create_task(
            upkeep.sweep(scene.db, scene.lanes, datetime.now(UTC) + timedelta(hours=1))
        )
        await asyncio.wait([later], timeout=0.05)
    first = await later
    await scene.expire(worker)
    second = await sweep(scene)
    assert first.attempts + second.attempts == 2
    assert [await scene.tables_of(job) for job in (held, coming)] == [["ready"], ["ready"]]


async def test_a_claim_that_meets_a_sweep_half_way_finds_its_worker_gone(scene: Scene):
    await scene.add()
    worker = await scene.worker()
    await scene.expire(worker)
    async with scene.pool.acquire() as other, other.transaction():
        await other.fetch(dispatch.statement("expire_workers"), None)
        claim = asyncio.create_task(scene.claim(worker))
        async with asyncio.timeout(10):
            with pytest.raises(dispatch.WorkerExpired):
                await claim
    assert await scene.count("ready") == 1


async def test_a_sweep_makes_the_lane_of_suspects_even_if_the_tenant_has_used_up_its_lanes(scene: Scene):
    (job,) = await scene.add()
    await scene.claim_one(worker := await scene.worker())
    await scene.expire(worker)
    assert (await upkeep.sweep(scene.db, Lanes(limit_per_tenant=1))).causes == {Cause.ORPHAN: 1}
    assert await scene.level(job) == 1


async def test_the_new_lane_of_suspects_is_told_to_the_workers(scene: Scene, wakes: Wakes):
    await scene.add()
    await scene.claim_one(worker := await scene.worker())
    await scene.expire(worker)
    await sweep(scene)
    assert (await wakes())[1:] == [("2", "*")]


async def test_a_sweep_takes_its_rows_in_order_of_job_so_that_it_cannot_deadlock(scene: Scene):
    """F25."""
    jobs = await scene.add(5)
    worker = await scene.worker()
    await scene.claim(worker)
    await scene.expire(worker)
    async with scene.pool.acquire() as first, scene.pool.acquire() as second:
        async with first.transaction():
            await first.execute("SELECT FROM jobyard.active WHERE job = $1 FOR UPDATE", jobs[0])
            waiting = asyncio.create_task(upkeep.sweep(second, scene.lanes))
            await until(scene.blocked)
            free = await scene.db.fetch("SELECT job FROM jobyard.active ORDER BY job FOR UPDATE SKIP LOCKED")
        assert [row["job"] for row in free] == jobs[1:]
        assert (await waiting).attempts == 5
