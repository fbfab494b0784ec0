"""`Prefer: wait`: an answer when the job is final, at the cost of one query a process."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg
import pytest

from api.site import JSON, MAIL, Site, head, problem, serving, until
from jobyard.domain.lifecycle import Fail, Succeeded
from jobyard.store import dispatch, reads
from jobyard.store.database import PlainConnection, Pool
from store.scene import Scene, ending

SEVEN = Succeeded("7")


async def waiting(site: Site, count: int = 1) -> None:
    async def as_many() -> bool:
        return len(site.app.waiters) == count

    await until(as_many)


async def finish_one(scene: Scene, outcome: Any = SEVEN) -> None:
    await dispatch.settle(scene.db, [ending(await scene.claim_one(), outcome)])


async def test_a_create_that_waits_is_answered_with_the_whole_job(site: Site, scene: Scene):
    create = asyncio.create_task(site.post(MAIL, Prefer="wait=30"))
    await waiting(site)
    await finish_one(scene)
    answer = await create
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["result"]) == ("completed", 7)
    assert answer.headers["location"] == f"/api/jobs/{answer.json()['id']}"


async def test_a_create_whose_time_is_up_is_answered_as_ever(site: Site):
    started = time.monotonic()
    answer = await site.post(MAIL, Prefer="wait=1")
    assert (answer.status_code, answer.json().keys()) == (202, {"id", "status"})
    assert time.monotonic() - started >= 0.9


async def test_a_repeat_may_wait_for_the_job_of_the_first(site: Site, scene: Scene):
    first = await site.post(MAIL, Idempotency_Key="k")
    again = asyncio.create_task(site.post(MAIL, Idempotency_Key="k", Prefer="wait=30"))
    await waiting(site)
    await finish_one(scene, Fail("no"))
    answer = await again
    assert (answer.status_code, answer.json()["id"], answer.json()["status"]) == (
        200,
        first.json()["id"],
        "failed",
    )
    assert answer.headers["idempotency-replayed"] == "true"
    unfinished = await site.post(b'{"type":"email"}', Idempotency_Key="l")
    late = await site.post(b'{"type":"email"}', Idempotency_Key="l", Prefer="wait=1")
    assert (late.status_code, late.json()) == (200, unfinished.json())


async def test_a_get_waits_for_the_end_and_not_for_a_start(site: Site, scene: Scene):
    job = await site.add()
    tag = (await site.get(f"/api/jobs/{job}")).headers["etag"]
    get = asyncio.create_task(
        site.get(f"/api/jobs/{job}", Prefer="respond-async, wait=30", If_None_Match=tag)
    )
    await waiting(site)
    attempt = await scene.claim_one()
    assert len(site.app.waiters) == 1
    await dispatch.settle(scene.db, [ending(attempt, Succeeded())])
    assert (await get).json()["status"] == "completed"
    at_once = await site.get(f"/api/jobs/{job}", Prefer="wait=30")
    assert at_once.json()["status"] == "completed"


async def test_a_get_whose_time_is_up_shows_the_job_as_it_is(site: Site):
    job = await site.add()
    answer = await site.get(f"/api/jobs/{job}", Prefer="wait=1")
    assert (answer.status_code, answer.json()["status"]) == (200, "pending")
    problem(
        await site.get("/api/jobs/01a210f7-d16a-75cb-ae71-932ef940bb06", Prefer="wait=30"), 404, "not_found"
    )


@pytest.mark.parametrize("prefer", ["wait", "wait=0", "wait=x", "wait=-1", "waiting=5", "return=minimal"])
async def test_a_preference_that_asks_for_no_wait_is_ignored(site: Site, prefer: str):
    assert (await site.post(MAIL, Prefer=prefer)).status_code == 202


async def test_two_hundred_waiters_cost_the_queries_of_one(pool: Pool, scene: Scene):
    statements: list[str] = []

    async def log_to(connection: asyncpg.Connection[Any]) -> None:
        connection.add_query_logger(lambda record: statements.append(record.query))

    jobs = await scene.add(200)
    watched = await asyncpg.create_pool(
        scene.url, min_size=4, max_size=4, init=log_to, connection_class=PlainConnection
    )
    async with serving(watched) as site:
        gets = [asyncio.create_task(site.get(f"/api/jobs/{job}", Prefer="wait=30")) for job in jobs]
        await waiting(site, 200)
        statements.clear()
        asked = reads.statement("finished")

        async def rounds() -> bool:
            return statements.count(asked) >= 5

        await until(rounds)
        ours = {sql for sql in statements if "jobyard." in sql}
        assert ours == {asked}, "waiting asks for nothing else"
        claimed = await scene.claim(await scene.worker())
        await dispatch.settle(scene.db, [ending(attempt, Succeeded()) for attempt in claimed])
        answers = await asyncio.gather(*gets)
        assert {answer.json()["status"] for answer in answers} == {"completed"}
        assert statements.count(asked) < 100
    await watched.close()


async def test_a_waiter_whose_client_vanishes_is_forgotten(site: Site):
    create = head(
        "POST",
        "/api/jobs",
        **{"Content-Type": JSON["Content-Type"]},
        Prefer="wait=60",
        Content_Length=str(len(MAIL)),
    )
    async with site.raw(create, MAIL), site.raw(create, MAIL):
        await waiting(site, 2)
    await waiting(site, 0)


async def test_too_many_waiters_are_told_to_come_back(pool: Pool, scene: Scene):
    async with serving(pool, max_waiters=1) as site:
        job = await site.add()
        get = asyncio.create_task(site.get(f"/api/jobs/{job}", Prefer="wait=30"))
        await waiting(site)
        refused = await site.get(f"/api/jobs/{job}", Prefer="wait=30")
        problem(refused, 503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        await finish_one(scene)
        assert (await get).json()["status"] == "completed"


async def test_a_create_that_may_not_wait_is_answered_as_committed_all_the_same(pool: Pool, scene: Scene):
    async with serving(pool, max_waiters=1) as site:
        job = await site.add()
        get = asyncio.create_task(site.get(f"/api/jobs/{job}", Prefer="wait=30"))
        await waiting(site)
        created = await site.post(MAIL, Prefer="wait=30")
        assert created.status_code == 202
        assert (await site.job(created.json()["id"]))["status"] == "pending"
        await finish_one(scene)
        assert (await get).json()["status"] == "completed"


async def test_a_stopping_process_answers_everybody_at_once(site: Site):
    job = await site.add()
    get = asyncio.create_task(site.get(f"/api/jobs/{job}", Prefer="wait=60"))
    create = asyncio.create_task(site.post(MAIL, Prefer="wait=60"))
    await waiting(site, 2)
    async with asyncio.timeout(5):
        await site.app.drain()
        assert (await get).json()["status"] == "pending"
        assert (await create).status_code == 202
        assert (await site.get(f"/api/jobs/{job}", Prefer="wait=60")).json()["status"] == "pending"


async def test_waiting_outlives_a_trouble_of_the_database(site: Site, scene: Scene):
    job = await site.add()
    get = asyncio.create_task(site.get(f"/api/jobs/{job}", Prefer="wait=30"))
    await waiting(site)
    async with scene.locked("done"):
        await until(scene.blocked)
        await scene.db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
        )
    await finish_one(scene)
    assert (await get).json()["status"] == "completed"
