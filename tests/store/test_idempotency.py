"""One key with one body is one job for 24 hours, at any concurrency (P5, F29)."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from uuid import UUID

import pytest

from jobyard.domain.errors import DatabaseUnavailable, IdempotencyMismatch, InvalidJob
from jobyard.store.intake import Created
from jobyard.store.lanes import Lanes
from store.scene import NUL_IN_JSONB, Scene, a_job, ids, keyed, until


async def test_60_keys_posted_50_times_at_once_make_60_jobs(scene: Scene):
    """F29, over two processes' worth of intakes."""
    intakes = [scene.intake(queue_limit=10_000, lanes=Lanes()) for _ in range(2)]
    posts = [(f"key {number % 60}", intakes[number % 2]) for number in range(60 * 50)]
    answers = await asyncio.gather(*(intake.create(keyed(key)) for key, intake in posts))
    found = dict[str, set[UUID]]()
    for (key, _), answer in zip(posts, answers, strict=True):
        found.setdefault(key, set()).add(answer.id)
    assert all(len(jobs) == 1 for jobs in found.values())
    assert len(set.union(*found.values())) == await scene.count("job") == await scene.count("ready") == 60
    assert sum(not answer.replayed for answer in answers) == 60


async def test_the_same_request_twice_is_one_job(scene: Scene):
    intake = scene.intake()
    first = await intake.create(keyed("k"))
    again = await intake.create(keyed("k"))
    assert (again.id, again.replayed) == (first.id, True)
    assert await scene.count("job") == 1
    assert await scene.events() == [("created", 1)]


async def test_a_key_with_another_body_is_refused(scene: Scene):
    intake = scene.intake()
    await intake.create(keyed("k", "one"))
    with pytest.raises(IdempotencyMismatch):
        await intake.create(keyed("k", "two"))
    assert await scene.count("job") == 1


async def test_repeats_within_one_flush_are_one_job(scene: Scene):
    jobs = [keyed("k"), keyed("k"), keyed("k", "other"), keyed("another"), a_job(), keyed("k")]
    answers = await scene.intake().create_many(jobs)
    assert answers[0] == Created(jobs[0].id)
    assert answers[1] == answers[5] == Created(jobs[0].id, replayed=True)
    assert isinstance(answers[2], IdempotencyMismatch)
    assert answers[3:5] == [Created(jobs[3].id), Created(jobs[4].id)]
    assert await scene.count("job") == 3


async def test_a_repeat_is_judged_by_the_key_s_holder_and_not_by_its_neighbour(scene: Scene):
    """Two bodies under one key in one flush, and the second is the one that made the job an hour ago."""
    intake = scene.intake()
    first = await intake.create(keyed("k", "true"))
    wrong, right = await intake.create_many([keyed("k", "false"), keyed("k", "true")])
    assert isinstance(wrong, IdempotencyMismatch)
    assert right == Created(first.id, replayed=True)


async def test_one_key_of_two_tenants_is_two_jobs(scene: Scene):
    answers = await scene.intake().create_many([keyed("k", tenant=1), keyed("k", tenant=2)])
    assert len(set(ids(answers))) == 2


async def test_a_first_caller_that_fails_does_not_burn_the_key(scene: Scene):
    intake = scene.intake()
    refused, repeat = await intake.create_many(
        [keyed("k", metadata=NUL_IN_JSONB), keyed("k", metadata=NUL_IN_JSONB)]
    )
    assert isinstance(refused, InvalidJob)
    assert isinstance(repeat, InvalidJob)
    job = keyed("k")
    assert await intake.create(job) == Created(job.id)


async def test_a_first_caller_that_is_cut_off_does_not_burn_the_key(scene: Scene):
    intake = scene.intake()
    async with scene.locked("ready"):
        first = asyncio.create_task(intake.create(keyed("k")))
        await until(scene.blocked)
        await scene.db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
        )
        with pytest.raises(DatabaseUnavailable):
            await first
    assert not (await intake.create(keyed("k"))).replayed
    assert await scene.count("job") == 1


async def test_an_expired_key_makes_a_new_job(scene: Scene):
    intake = scene.intake()
    old = await intake.create(keyed("k", "one"))
    await scene.db.execute("UPDATE jobyard.idempotency SET expires_at = now() - interval '1s'")
    new = await intake.create(keyed("k", "two"))
    assert (new.replayed, new.id != old.id) == (False, True)
    assert (await intake.create(keyed("k", "two"))).id == new.id
    assert await scene.count("job") == 2


async def test_a_key_lives_for_24_hours(scene: Scene):
    await scene.intake().create(keyed("k"))
    hours = "SELECT extract(epoch FROM expires_at - created_at) / 3600 FROM jobyard.idempotency, jobyard.job"
    assert await scene.db.fetchval(hours) == 24


async def test_flushes_with_their_keys_in_opposite_order_do_not_deadlock(scene: Scene):
    """F25. Whoever waits for the first key holds no other."""
    intake = scene.intake()
    keys = ["a", "b", "c"]
    async with scene.pool.acquire() as first:
        async with first.transaction():
            await first.execute(
                "INSERT INTO jobyard.idempotency VALUES (1, 'a', $1, $2, now() + interval '1h')",
                a_job().id,
                sha256(b"body").digest(),
            )
            flush = asyncio.create_task(intake.create_many([keyed(key) for key in reversed(keys)]))
            await until(scene.blocked)
            await scene.db.execute("SET lock_timeout = '2s'")
            await scene.db.execute(
                "INSERT INTO jobyard.idempotency VALUES (1, 'b', $1, $2, now() - interval '1h')",
                a_job().id,
                sha256(b"body").digest(),
            )
        answers = await flush
    assert [isinstance(answer, Created) and answer.replayed for answer in answers] == [False, False, True]
