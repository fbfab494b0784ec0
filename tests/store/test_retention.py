"""What is over goes when it is kept no longer: by small batches, with all that is kept of it, and never a job that
lives."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from jobyard.domain.lifecycle import Fail, Outcome, Succeeded
from jobyard.store import dispatch, upkeep
from store.scene import Scene, ending, keyed

DAY = 86400.0


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
            return sum([await upkeep.delete_finished(connection, DAY, DAY) for _ in range(12)])

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
