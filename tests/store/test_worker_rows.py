"""The row of a worker, and what it tells."""

from __future__ import annotations

from jobyard.domain.lifecycle import Succeeded
from jobyard.ids import new_job_id
from jobyard.store import dispatch
from store.scene import Scene, a_job, ending

BOOM = {"type": "Boom", "message": "it went wrong"}


async def test_a_beat_renews_the_leases_by_the_clock_of_the_database(scene: Scene):
    worker = await scene.worker(lease=1.0)
    async with scene.db.transaction():
        assert await dispatch.beat(scene.db, worker, 45.0)
        left = "SELECT extract(epoch FROM expires_at - now())::float8 FROM jobyard.worker"
        assert await scene.db.fetchval(left) == 45.0


async def test_a_beat_of_an_expired_worker_brings_nothing_back(scene: Scene):
    worker = await scene.worker()
    await scene.expire(worker)
    assert not await dispatch.beat(scene.db, worker, 45.0)
    assert await scene.db.fetchval("SELECT expires_at < now() FROM jobyard.worker")


async def test_a_worker_gets_an_id_that_was_never_used_before(scene: Scene):
    first = await scene.worker(name="same")
    await dispatch.stop_worker(scene.db, first)
    assert await scene.worker(name="same") > first


async def test_what_a_worker_holds_is_told_with_its_leases(scene: Scene):
    await scene.add(3)
    mine, other = await scene.worker(), await scene.worker()
    claimed = await scene.claim(mine, 2)
    await scene.claim(other, 1)
    held = await dispatch.held_by(scene.db, mine)
    assert {(it.job, it.lease) for it in held} == {(attempt.job, attempt.lease) for attempt in claimed}
    assert await dispatch.held_by(scene.db, await scene.worker()) == []


async def test_a_worker_learns_the_lanes_of_its_types(scene: Scene):
    await scene.add(type="email", queue="mail", priority=7)
    await scene.add(type="report")
    (lane,) = await dispatch.lanes_of(scene.db, ["email", "unheard_of"])
    assert (lane.tenant, lane.queue, lane.type, lane.priority, lane.suspect) == (1, "mail", "email", 7, 0)
    assert lane.key == a_job(queue="mail", priority=7).lane


async def test_an_unknown_job_is_nobodys_to_settle(scene: Scene):
    await scene.add()
    attempt = await scene.claim_one()
    stranger = ending(attempt, Succeeded())._replace(job=new_job_id())
    assert await dispatch.settle(scene.db, [stranger]) == set()
    assert await scene.count("done") == 0
