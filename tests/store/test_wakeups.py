"""Workers are woken at most once a statement, only where one is idle, and no more of them than the jobs can use."""

from __future__ import annotations

from jobyard.domain.lifecycle import Retry
from jobyard.store import dispatch
from store.conftest import Wakes
from store.scene import NUL_IN_JSONB, Scene, a_job, ending


async def idle_worker(scene: Scene, *types: str) -> int:
    worker = await scene.worker(*types)
    await dispatch.set_idle(scene.db, worker, True)
    return worker


async def test_a_new_lane_is_told_to_everybody(scene: Scene, wakes: Wakes):
    await scene.add()
    assert await wakes() == [("1", "*")]


async def test_a_new_lane_is_told_even_if_its_first_job_waits(scene: Scene, wakes: Wakes):
    """A worker that is busy elsewhere would else not know of the lane when the job comes due."""
    await scene.add(delay_seconds=60.0)
    assert await wakes() == [("1", "*")]


async def test_a_new_lane_is_told_even_if_its_first_flush_held_a_poison_row(scene: Scene, wakes: Wakes):
    await scene.intake().create_many([a_job(metadata=NUL_IN_JSONB), a_job()])
    assert await wakes() == [("1", "*")]


async def test_nobody_is_woken_where_nobody_is_idle(scene: Scene, wakes: Wakes):
    await scene.add()
    await scene.worker("email")
    await idle_worker(scene, "report")
    await scene.expire(await idle_worker(scene, "email"))
    await scene.add(10)
    assert len(await wakes()) == 1


async def test_an_idle_worker_of_the_type_is_woken_once_a_flush(scene: Scene, wakes: Wakes):
    await scene.add()
    worker = await idle_worker(scene, "email", "report")
    await scene.add(100)
    assert (await wakes())[1:] == [("1", str(worker))]


async def test_a_worker_that_is_no_longer_idle_is_not_woken(scene: Scene, wakes: Wakes):
    await scene.add()
    worker = await idle_worker(scene, "email")
    await dispatch.set_idle(scene.db, worker, False)
    await scene.add()
    assert len(await wakes()) == 1


async def test_one_job_wakes_one_of_a_hundred_idle_workers(scene: Scene, wakes: Wakes):
    """F07."""
    await scene.add()
    for _ in range(100):
        await idle_worker(scene)
    await scene.add()
    await scene.add(64)
    named = [workers.split(",") for _, workers in (await wakes())[1:]]
    assert [len(workers) for workers in named] == [1, 5]


async def test_a_flush_over_several_lanes_wakes_once_and_names_them(scene: Scene, wakes: Wakes):
    for priority in (1, 2, 3):
        await scene.add(priority=priority)
    worker = await idle_worker(scene)
    await scene.intake().create_many([a_job(priority=priority) for priority in (3, 1, 3)])
    assert (await wakes())[3:] == [("1,3", str(worker))]


async def test_a_job_that_waits_wakes_nobody(scene: Scene, wakes: Wakes):
    await scene.add()
    await idle_worker(scene)
    await scene.add(delay_seconds=60.0)
    assert len(await wakes()) == 1


async def test_a_release_wakes_an_idle_worker_and_a_retry_to_come_does_not(scene: Scene, wakes: Wakes):
    await scene.add(2)
    first, second = await scene.claim(await scene.worker())
    worker = await idle_worker(scene)
    await dispatch.hand_back(scene.db, scene.lanes, [ending(first, Retry(after=60.0))])
    assert len(await wakes()) == 1
    await dispatch.hand_back(scene.db, scene.lanes, [ending(second)])
    assert (await wakes())[1:] == [("1", str(worker))]
