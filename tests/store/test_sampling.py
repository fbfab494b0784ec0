"""The sample: what waits and what happened, counted once for everybody."""

from __future__ import annotations

import asyncio

from jobyard.domain.lifecycle import Fail, Retry, Succeeded
from jobyard.store import database as db
from jobyard.store import dispatch, sampling, upkeep
from jobyard.store.sampling import Sample, last_sample, take_sample
from jobyard.store.statements import statement
from store.scene import Scene, ending


async def sampled(scene: Scene) -> Sample:
    """The yard as a sample taken right now shows it."""
    await scene.db.execute("UPDATE jobyard.sample SET at = at - interval '10s'")
    assert await take_sample(scene.db, 10)
    sample = await last_sample(scene.db)
    assert sample is not None
    return sample


async def test_before_the_first_sample_there_is_none(scene: Scene):
    assert await last_sample(scene.db) is None


async def test_jobs_are_counted_by_queue_and_type_where_they_stand(scene: Scene):
    await scene.add(5)
    for priority in (5, 9):
        await scene.add(1, type="report", queue="slow", priority=priority)
    await scene.add(3, delay_seconds=60.0)
    await scene.claim(await scene.worker(), 4)
    mails, reports = (await sampled(scene)).types
    assert (mails.queue, mails.type, mails.ready, mails.scheduled, mails.active) == (
        "default",
        "email",
        1,
        3,
        4,
    )
    assert (reports.queue, reports.type, reports.ready, reports.active) == ("slow", "report", 2, 0)
    assert mails.oldest == await scene.db.fetchval("SELECT since FROM jobyard.ready WHERE lane = 1")
    assert reports.oldest == await scene.db.fetchval("SELECT min(since) FROM jobyard.ready WHERE lane > 1")
    assert (mails.suspects, reports.suspects) == (0, 0)


async def test_what_was_in_flight_when_a_worker_died_is_counted_as_suspect(scene: Scene):
    await scene.add(3)
    worker = await scene.worker()
    await scene.claim(worker, 2)
    await scene.expire(worker)
    await upkeep.sweep(scene.db, scene.lanes)
    (mails,) = (await sampled(scene)).types
    assert (mails.ready, mails.suspects) == (3, 2)


async def test_what_happened_is_counted_since_the_last_sample_and_summed_over_a_minute(scene: Scene):
    await scene.add(4)
    await take_sample(scene.db, 10)
    await scene.add(6)
    attempts = await scene.claim(await scene.worker())
    await dispatch.settle(scene.db, [ending(it, Succeeded()) for it in attempts[:5]])
    await dispatch.settle(scene.db, [ending(it, Fail("no")) for it in attempts[5:7]])
    await dispatch.hand_back(scene.db, scene.lanes, [ending(it, Retry(60.0)) for it in attempts[7:]])
    (moved,) = (await sampled(scene)).history
    assert moved.events == {"created": 6, "started": 10, "completed": 5, "failed": 2, "retry_scheduled": 3}
    await scene.add(1)
    sample = await sampled(scene)
    assert sample.history[-1].events == {"created": 1}
    within = sample.events_within(60)
    assert (within.events["created"], within.events["completed"], within.events["released"]) == (7, 5, 0)
    assert 20 <= within.seconds < 25


async def test_a_minute_is_not_summed_over_what_lies_before_it(scene: Scene):
    await take_sample(scene.db, 10)
    for _ in range(3):
        await scene.add(1)
        await scene.db.execute("UPDATE jobyard.sample SET at = at - interval '40s'")
        sample = await sampled(scene)
    assert sample.events_within(60).events["created"] == 1


async def test_history_is_kept_within_its_bound(scene: Scene):
    await take_sample(scene.db, 10)
    before = await sampled(scene)
    assert len(before.history) == 1
    await scene.db.execute(
        "UPDATE jobyard.sample SET history = replace(history::text, $1, '2020')::json", str(before.at.year)
    )
    assert len((await sampled(scene)).history) == 1


async def test_of_several_maintainers_one_counts_in_each_interval(scene: Scene):
    others = [await db.connect(scene.url, hot=True, name="test") for _ in range(3)]
    taken = await asyncio.gather(*(take_sample(it, 10) for it in others))
    assert sum(taken) >= 1
    assert await asyncio.gather(*(take_sample(it, 10) for it in others)) == [False] * 3
    assert await scene.count("sample") == 1
    for connection in others:
        await connection.close()


async def test_a_fresh_sample_is_neither_counted_again_nor_replaced(scene: Scene):
    await take_sample(scene.db, 10)
    sent = list[str]()
    async with scene.pool.acquire() as connection:
        connection.add_query_logger(lambda record: sent.append(record.query))
        assert not await take_sample(connection, 10)
        await asyncio.sleep(0)  # a logger is called in the loop's next turn
    assert len(sent) == 1, "it is looked at, and nothing is counted"
    # Two that both saw an old one: the later comes too late.
    assert await scene.db.fetchval(statement("sample_put"), 7, "[]", "[]", 10) is None


async def test_a_sample_leaves_the_settings_of_its_connection_as_they_were(scene: Scene):
    await take_sample(scene.db, 10)
    assert await scene.db.fetchval("SHOW enable_seqscan") == "off"
    assert await scene.db.fetchval("SHOW enable_hashjoin") == "off"
    assert sampling.HISTORY_SECONDS > 60
