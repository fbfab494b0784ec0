"""What maintainers do: promote, sweep, retention, and forgetting old keys and events."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from jobyard.domain.job import LaneKey
from jobyard.domain.lifecycle import Cause, Fail, Outcome, Retry, Succeeded
from jobyard.domain.retry import Backoff
from jobyard.store import dispatch, upkeep
from jobyard.store.lanes import Lanes
from store.scene import LEASE, Scene, ending, keyed, until

NOTHING = upkeep.Swept([], {})
DAY = 86400.0
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
            return sum([await upkeep.promote(connection, later) for _ in range(10)])  # type: ignore[arg-type]

    assert sum(await asyncio.gather(*(maintain() for _ in range(4)))) == await scene.count("ready") == 200


async def test_the_wait_for_the_next_due_job_is_told_in_seconds(scene: Scene):
    assert await upkeep.seconds_until_due(scene.db) is None
    await scene.add(delay_seconds=60.0)
    await scene.add(delay_seconds=30.0)
    waits = await upkeep.seconds_until_due(scene.db)
    assert waits is not None
    assert 20 < waits <= 30


async def test_a_promoted_job_wakes_an_idle_worker(scene: Scene):
    heard = asyncio.Queue[str]()
    await scene.add(delay_seconds=60.0)
    worker = await scene.worker()
    await dispatch.set_idle(scene.db, worker, True)
    async with scene.pool.acquire() as connection:
        await connection.add_listener("jobyard_ready", lambda *it: heard.put_nowait(it[-1]))
        await upkeep.promote(scene.db, datetime.now(UTC) + timedelta(minutes=2))
        assert await asyncio.wait_for(heard.get(), 10) == f"1|{worker}"
        await connection.reset()


# Sweep


async def test_the_attempts_of_a_dead_worker_go_back_as_suspects_uncharged(scene: Scene):
    jobs = await scene.add(3)
    worker = await scene.worker(name="w-1")
    await scene.claim(worker, 2)
    await scene.expire(worker)
    assert await sweep(scene) == upkeep.Swept([(worker, "w-1")], {Cause.ORPHAN: 2})
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
    assert await sweep(scene) == upkeep.Swept([], {Cause.RETRY: 1})
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
            return (await upkeep.sweep(connection, Lanes())).attempts  # type: ignore[arg-type]

    assert sum(await asyncio.gather(*(maintain() for _ in range(4)))) + (await sweep(scene)).attempts == 200
    assert await scene.count("ready") == await scene.count("attempt") == 200


async def test_a_sweep_that_meets_a_claim_half_way_takes_back_all_of_the_worker_next_time(scene: Scene):
    """The claim has locked its worker's row, and the row expires before the claim commits."""
    held, coming = await scene.add(2)
    worker = await scene.worker()
    await scene.claim(worker, 1)
    async with scene.pool.acquire() as other, other.transaction():
        lanes = await scene.lane_ids()
        await dispatch.claim(other, worker, lanes, [0], 1, LEASE)  # type: ignore[arg-type]
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


async def test_the_new_lane_of_suspects_is_told_to_the_workers(scene: Scene):
    heard = asyncio.Queue[str]()
    await scene.add()
    await scene.claim_one(worker := await scene.worker())
    await scene.expire(worker)
    async with scene.pool.acquire() as connection:
        await connection.add_listener("jobyard_ready", lambda *it: heard.put_nowait(it[-1]))
        await sweep(scene)
        lane = await scene.lanes.id_of(scene.db, LaneKey(1, "default", "email", 5, 1))
        assert await asyncio.wait_for(heard.get(), 10) == f"{lane[0]}|*"
        await connection.reset()


async def test_a_sweep_takes_its_rows_in_order_of_job_so_that_it_cannot_deadlock(scene: Scene):
    """F25."""
    jobs = await scene.add(5)
    worker = await scene.worker()
    await scene.claim(worker)
    await scene.expire(worker)
    async with scene.pool.acquire() as first, scene.pool.acquire() as second:
        async with first.transaction():
            await first.execute("SELECT FROM jobyard.active WHERE job = $1 FOR UPDATE", jobs[0])
            waiting = asyncio.create_task(upkeep.sweep(second, scene.lanes))  # type: ignore[arg-type]
            await until(scene.blocked)
            free = await scene.db.fetch("SELECT job FROM jobyard.active ORDER BY job FOR UPDATE SKIP LOCKED")
        assert [row["job"] for row in free] == jobs[1:]
        assert (await waiting).attempts == 5


# Retention


async def age(scene: Scene, seconds: float, *jobs: UUID) -> None:
    await scene.db.execute(
        "UPDATE jobyard.done SET finished_at = now() - make_interval(secs => $1) WHERE job = ANY ($2)",
        seconds,
        jobs,
    )


async def rows_of(scene: Scene, job: UUID) -> int:
    tables = {
        "job": "id",
        "ready": "job",
        "scheduled": "job",
        "active": "job",
        "done": "job",
        "attempt": "job",
    }
    counts = [
        await scene.db.fetchval(f"SELECT count(*) FROM jobyard.{table} WHERE {column} = $1", job)
        for table, column in tables.items()
    ]
    return sum(counts)


@pytest.mark.parametrize(
    ("outcome", "kept"),
    [(Succeeded(), (10 * DAY, DAY)), (Fail("no"), (DAY, 10 * DAY))],
    ids=["completed", "failed"],
)
async def test_a_finished_job_goes_when_its_outcome_is_kept_no_longer(
    scene: Scene, outcome: Outcome, kept: tuple[float, float]
):
    old, young = await scene.add_finished(2, outcome)
    await age(scene, 5 * DAY, old, young)
    assert await upkeep.delete_finished(scene.db, *kept) == 0
    await age(scene, 11 * DAY, old)
    assert await upkeep.delete_finished(scene.db, *kept) == 1
    assert (await rows_of(scene, old), await rows_of(scene, young)) == (0, 2)


async def test_all_that_is_kept_of_a_job_goes_with_it(scene: Scene):
    (job,) = await scene.add()
    await dispatch.hand_back(scene.db, scene.lanes, [ending(await scene.claim_one())])
    await dispatch.settle(scene.db, [ending(await scene.claim_one(), Succeeded())])
    assert await rows_of(scene, job) == 3
    await age(scene, 2 * DAY, job)
    assert await upkeep.delete_finished(scene.db, DAY, DAY) == 1
    assert await rows_of(scene, job) == 0


async def test_a_job_that_lives_is_never_deleted(scene: Scene):
    jobs = await scene.add_finished(4, Fail("no"))
    await age(scene, 99 * DAY, *jobs)
    again = "SELECT lane, 2, 0, 0, id FROM jobyard.job WHERE id ="
    await scene.db.execute(
        f"INSERT INTO jobyard.ready (lane, run, attempt, crashes, job) {again} $1", jobs[0]
    )
    await scene.db.execute(
        "INSERT INTO jobyard.scheduled (job, run_at, lane, run, attempt, crashes) VALUES ($1, now(), 1, 2, 0, 0)",
        jobs[1],
    )
    await scene.db.execute(
        "INSERT INTO jobyard.active (job, lease, worker, deadline, tenant, lane, run, attempt, crashes)"
        " VALUES ($1, 99, 1, now(), 1, 1, 2, 1, 0)",
        jobs[2],
    )
    assert await upkeep.delete_finished(scene.db, DAY, DAY) == 1
    assert [await rows_of(scene, job) for job in jobs] == [3, 3, 3, 0]


async def test_only_the_last_run_decides_and_then_all_runs_go(scene: Scene):
    (job,) = await scene.add_finished(1, Fail("no"))
    await scene.db.execute(
        "INSERT INTO jobyard.done (job, run, attempt, tenant, status) VALUES ($1, 2, 1, 1, 'completed')", job
    )
    await scene.db.execute("UPDATE jobyard.done SET finished_at = now() - interval '9 days' WHERE run = 1")
    assert await upkeep.delete_finished(scene.db, DAY, DAY) == 0
    await age(scene, 2 * DAY, job)
    assert await upkeep.delete_finished(scene.db, DAY, DAY) == 1
    assert await rows_of(scene, job) == 0


async def test_retention_goes_by_batches_and_takes_the_oldest_first(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(upkeep, "DELETE_ROWS", 10)
    jobs = await scene.add_finished(25)
    for days, job in enumerate(jobs):
        await age(scene, (100 - days) * DAY, job)
    assert await upkeep.delete_finished(scene.db, DAY, DAY) == 10
    left = await scene.db.fetch("SELECT id FROM jobyard.job ORDER BY id")
    assert [row["id"] for row in left] == jobs[10:]
    assert [await upkeep.delete_finished(scene.db, DAY, DAY) for _ in range(3)] == [10, 5, 0]


async def test_retention_passes_over_a_job_that_somebody_holds(scene: Scene):
    held, free = await scene.add_finished(2)
    await age(scene, 9 * DAY, held, free)
    async with scene.pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM jobyard.job WHERE id = $1 FOR NO KEY UPDATE", held)
        assert await upkeep.delete_finished(scene.db, DAY, DAY) == 1
    assert (await rows_of(scene, held), await rows_of(scene, free)) == (2, 0)


async def test_maintainers_at_once_delete_each_job_once(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upkeep, "DELETE_ROWS", 10)
    await age(scene, 9 * DAY, *await scene.add_finished(100))

    async def maintain() -> int:
        async with scene.pool.acquire() as connection:
            return sum([await upkeep.delete_finished(connection, DAY, DAY) for _ in range(12)])  # type: ignore[arg-type]

    deleted = sum(await asyncio.gather(*(maintain() for _ in range(3))))
    assert deleted + await scene.count("job") == 100
    while rest := await upkeep.delete_finished(scene.db, DAY, DAY):
        deleted += rest
    assert (deleted, await scene.count("done")) == (100, 0)


# Old keys, old events


async def test_a_key_is_forgotten_when_its_day_is_over(scene: Scene):
    await scene.intake().create_many([keyed("old"), keyed("new")])
    assert await upkeep.delete_expired_keys(scene.db) == 0
    await scene.db.execute(
        "UPDATE jobyard.idempotency SET expires_at = now() - interval '1s' WHERE key = 'old'"
    )
    assert await upkeep.delete_expired_keys(scene.db) == 1
    assert await scene.db.fetchval("SELECT array_agg(key) FROM jobyard.idempotency") == ["new"]
    assert await scene.count("job") == 2


async def test_old_events_go_by_batches_from_the_oldest(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upkeep, "DELETE_ROWS", 2)
    for _ in range(5):
        await scene.add()
    await scene.db.execute("UPDATE jobyard.event SET at = now() - interval '2 days' WHERE seq <= 3")
    assert [await upkeep.delete_old_events(scene.db, DAY) for _ in range(3)] == [2, 1, 0]
    assert await scene.db.fetchval("SELECT array_agg(seq ORDER BY seq) FROM jobyard.event") == [4, 5]
