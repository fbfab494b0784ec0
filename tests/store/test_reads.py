"""Looking at jobs that move meanwhile: each stands in one place, and a walk over pages meets each once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from jobyard.domain.lifecycle import Fail, Failed, Retry, Status, Succeeded
from jobyard.ids import new_job_id
from jobyard.store import dispatch, reads
from jobyard.store.reads import NEWEST, NEWEST_LEASE, Filters, Page
from store.scene import Scene, a_job, ending

EVERYTHING = Filters()
BOOM = {"type": "Boom", "message": "it went wrong"}


async def page(
    scene: Scene,
    filters: Filters = EVERYTHING,
    *,
    below: UUID = NEWEST,
    size: int = 1000,
    examine: int = 10_000,
) -> Page:
    return await reads.list_jobs(scene.db, 1, filters, below, size, examine)


async def listed(scene: Scene, filters: Filters = EVERYTHING) -> set[UUID]:
    return {row["id"] for row in (await page(scene, filters)).rows}


async def one_of_each(scene: Scene) -> dict[str, UUID]:
    """Five jobs: one in each place, and of the finished ones one of each outcome."""
    completed, failed, active, ready = await scene.add(4, max_attempts=1)
    worker = await scene.worker()
    first, second, _ = await scene.claim(worker, 3)
    await dispatch.settle(scene.db, [ending(first, Succeeded('{"n":1}')), ending(second, Failed(BOOM))])
    (scheduled,) = await scene.add(delay_seconds=60.0)
    return {
        "completed": completed,
        "failed": failed,
        "processing": active,
        "ready": ready,
        "scheduled": scheduled,
    }


# One job


async def test_a_job_is_told_with_what_was_asked_and_where_it_is(scene: Scene):
    job = a_job(queue="mail", priority=7, tags='["a"]', metadata='{"k":"v"}', trace="t", payload='{"a":  1}')
    await scene.intake().create(job)
    row = await reads.get(scene.db, job.id, 1)
    assert row is not None
    assert (row["id"], row["type"], row["queue"], row["priority"]) == (job.id, "email", "mail", 7)
    assert (row["payload"], row["tags"], row["metadata"], row["trace"]) == (
        '{"a":  1}',
        '["a"]',
        '{"k": "v"}',
        "t",
    )
    assert (row["status"], row["run"], row["attempt"], row["max_attempts"]) == ("pending", 1, 0, 5)
    assert (row["reason"], row["result"], row["error"], row["asked_run_at"]) == (None, None, None, None)
    assert row["created_at"] == row["updated_at"] == row["run_at"]


async def test_a_job_is_told_truly_at_every_step_of_its_life(scene: Scene):
    (job,) = await scene.add()
    seen = list[tuple[str, str | None, int]]()

    async def look() -> None:
        row = await reads.get(scene.db, job, 1)
        assert row is not None
        seen.append((row["status"], row["reason"], row["attempt"]))

    await look()
    attempt = await scene.claim_one()
    await look()
    await dispatch.hand_back(scene.db, scene.lanes, [ending(attempt, Retry(after=0.0))])
    await look()
    attempt = await scene.claim_one()
    await look()
    await dispatch.settle(scene.db, [ending(attempt, Fail("no"))])
    await look()
    assert seen == [
        ("pending", None, 0),
        ("processing", None, 1),
        ("pending", None, 1),
        ("processing", None, 2),
        ("failed", "non_retryable", 2),
    ]


async def test_an_unknown_job_is_nobody_s(scene: Scene):
    assert await reads.get(scene.db, new_job_id(), 1) is None


async def test_a_job_of_another_tenant_is_not_there(scene: Scene):
    (job,) = await scene.add(tenant=2)
    assert await reads.get(scene.db, job, 1) is None
    assert await listed(scene) == set()
    assert await reads.get(scene.db, job, 2) is not None


# Lists


async def test_a_list_tells_the_newest_first(scene: Scene):
    jobs = await scene.add(5)
    assert [row["id"] for row in (await page(scene)).rows] == jobs[::-1]


async def test_a_list_of_nothing_is_an_empty_last_page(scene: Scene):
    assert await page(scene) == Page([], None)


@pytest.mark.parametrize(
    ("status", "places"),
    [
        (None, {"ready", "scheduled", "processing", "completed", "failed"}),
        (Status.PENDING, {"ready", "scheduled"}),
        (Status.PROCESSING, {"processing"}),
        (Status.COMPLETED, {"completed"}),
        (Status.FAILED, {"failed"}),
    ],
)
async def test_each_status_lists_its_own(scene: Scene, status: Status | None, places: set[str]):
    jobs = await one_of_each(scene)
    rows = (await page(scene, Filters(status=status))).rows
    assert {row["id"] for row in rows} == {jobs[place] for place in places}
    assert len(rows) == len(places)
    assert status is None or {row["status"] for row in rows} == {status.value}


async def test_a_list_finds_by_type_queue_tag_and_metadata(scene: Scene):
    plain, report, mail, tagged, marked = (
        a_job(),
        a_job(type="report"),
        a_job(queue="mail"),
        a_job(tags='["red","green"]'),
        a_job(metadata='{"team":"a","env":"prod"}'),
    )
    await scene.intake().create_many([plain, report, mail, tagged, marked])
    assert await listed(scene, Filters(type="report")) == {report.id}
    assert await listed(scene, Filters(queue="mail")) == {mail.id}
    assert await listed(scene, Filters(tag="green")) == {tagged.id}
    assert await listed(scene, Filters(tag="gre")) == set()
    assert await listed(scene, Filters(metadata='{"team":"a"}')) == {marked.id}
    assert await listed(scene, Filters(metadata='{"team":"a","env":"dev"}')) == set()
    assert await listed(scene, Filters(type="email", queue="default")) == {plain.id, tagged.id, marked.id}
    assert await listed(scene, Filters(status=Status.PROCESSING, type="email")) == set()


async def test_a_list_finds_by_the_time_of_creation_by_the_clock_of_the_database(scene: Scene):
    (early,), (late,) = await scene.add(), await scene.add()
    times = {row["id"]: row["created_at"] for row in (await page(scene)).rows}
    assert await listed(scene, Filters(created_after=times[late])) == {late}
    assert await listed(scene, Filters(created_before=times[late])) == {early}
    assert await listed(scene, Filters(created_after=times[late] + timedelta(microseconds=1))) == set()


@pytest.mark.parametrize("size", [100, 1])
@pytest.mark.parametrize("status", [None, Status.PENDING])
async def test_a_walk_meets_each_of_250_once_while_others_are_created_and_finished(
    scene: Scene, size: int, status: Status | None
):
    """F09."""
    await scene.add_finished(20)
    jobs = await scene.add(250)
    met, below, stop = list[UUID](), NEWEST, asyncio.Event()

    async def others() -> None:
        async with scene.pool.acquire() as connection:
            busy = Scene(scene.url, scene.pool, connection, scene.lanes)
            worker = await busy.worker()
            lane = (await dispatch.lanes_of(busy.db, ["other"]))[0].id
            while not stop.is_set():
                await busy.add(type="other")
                attempts = await busy.claim(worker, 1, lanes=[lane])
                await dispatch.settle(busy.db, [ending(attempt, Succeeded()) for attempt in attempts])

    await scene.add(type="other")
    noise = asyncio.create_task(others())
    while below:
        found = await page(scene, Filters(status=status), below=below, size=size)
        met += [row["id"] for row in found.rows]
        below = found.last
    stop.set()
    await noise
    assert len(met) == len(set(met))
    assert [job for job in met if job in set(jobs)] == jobs[::-1]


async def test_a_full_last_page_ends_the_walk(scene: Scene):
    await scene.add(6)
    first = await page(scene, size=3)
    assert (len(first.rows), first.last) == (3, first.rows[-1]["id"])
    assert first.last
    second = await page(scene, size=3, below=first.last)
    assert (len(second.rows), second.last) == (3, None)


async def test_a_filter_that_matches_little_looks_at_a_bounded_number_of_rows_and_says_where_it_stopped(
    scene: Scene,
):
    (needle,) = await scene.add(type="needle")
    hay = await scene.add(25)
    found, looks, below = list[UUID](), 0, NEWEST
    while below:
        shown = await page(scene, Filters(type="needle"), below=below, size=5, examine=10)
        found += [row["id"] for row in shown.rows]
        below, looks = shown.last, looks + 1
        assert looks > 2 or below == hay[25 - 10 * looks]
    assert (found, looks) == ([needle], 3)


async def test_the_bound_never_ends_a_page_that_is_full(scene: Scene):
    jobs = await scene.add(20)
    shown = await page(scene, size=5, examine=10)
    assert [row["id"] for row in shown.rows] == jobs[:14:-1]
    assert shown.last == jobs[15]


async def test_a_job_that_failed_in_two_runs_is_listed_once(scene: Scene):
    (job,) = await scene.add_finished(1, Fail("no"))
    await scene.db.execute(
        "INSERT INTO jobyard.done (job, run, attempt, tenant, status, reason)"
        " VALUES ($1, 2, 1, 1, 'failed', 'exhausted')",
        job,
    )
    rows = (await page(scene, Filters(status=Status.FAILED))).rows
    assert [(row["id"], row["run"], row["reason"]) for row in rows] == [(job, 2, "exhausted")]


async def test_a_failed_job_that_lives_again_is_listed_where_it_is_now(scene: Scene):
    (job,) = await scene.add_finished(1, Fail("no"))
    await scene.db.execute(
        "INSERT INTO jobyard.ready (lane, run, attempt, crashes, job) VALUES (1, 2, 0, 0, $1)", job
    )
    assert await listed(scene, Filters(status=Status.FAILED)) == set()
    assert await listed(scene, Filters(status=Status.PENDING)) == {job}
    assert len((await page(scene)).rows) == 1


async def test_one_page_never_shows_a_job_twice_or_not_at_all_while_it_moves(scene: Scene):
    jobs = await scene.add(30)
    worker, lanes, stop = await scene.worker(), await scene.lane_ids(), asyncio.Event()

    async def move_them_in_circles() -> None:
        async with scene.pool.acquire() as connection:
            while not stop.is_set():
                attempts = await dispatch.claim(connection, worker, lanes, [0], 30, 30.0)
                back = [ending(attempt) for attempt in attempts]
                await dispatch.hand_back(connection, scene.lanes, back)

    circling = asyncio.create_task(move_them_in_circles())
    for _ in range(150):
        assert [row["id"] for row in (await page(scene)).rows] == jobs[::-1]
    stop.set()
    await circling


# Attempts, and who waits


async def test_the_attempts_of_a_job_are_told_from_all_three_places_newest_first(scene: Scene):
    (job,) = await scene.add(max_attempts=9)
    leases = list[int]()
    for outcome in (Failed(BOOM), None, Retry(after=0.0)):
        attempt = await scene.claim_one()
        leases.append(attempt.lease)
        await dispatch.hand_back(scene.db, scene.lanes, [ending(attempt, outcome)])
        await scene.db.execute("UPDATE jobyard.scheduled SET run_at = now()")
        await scene.db.fetchval(dispatch.statement("promote"), 10, None)
    last = await scene.claim_one()
    running = await reads.attempts(scene.db, job, NEWEST_LEASE, 10)
    assert [row["lease"] for row in running] == [last.lease, *leases[::-1]]
    assert [row["outcome"] for row in running] == ["running", "retry", "release", "retry"]
    assert [row["attempt"] for row in running] == [3, 2, 2, 1]
    assert running[0]["ended_at"] is None
    assert all(row["ended_at"] >= row["started_at"] for row in running[1:])
    await dispatch.settle(scene.db, [ending(last, Fail("no"))])
    (over,) = await reads.attempts(scene.db, job, NEWEST_LEASE, 1)
    assert (over["outcome"], over["reason"], over["lease"]) == ("failed", "non_retryable", last.lease)
    rest = await reads.attempts(scene.db, job, last.lease, 10)
    assert [row["lease"] for row in rest] == leases[::-1]


async def test_a_job_that_was_never_started_has_no_attempts(scene: Scene):
    (job,) = await scene.add()
    assert await reads.attempts(scene.db, job, NEWEST_LEASE, 10) == []


async def test_the_runs_that_are_over_are_told_to_those_who_wait(scene: Scene):
    jobs = await one_of_each(scene)
    waited_for = [(job, 1) for job in jobs.values()]
    assert set(await reads.finished(scene.db, waited_for)) == {(jobs["completed"], 1), (jobs["failed"], 1)}
    assert await reads.finished(scene.db, [(jobs["failed"], 2)]) == []
    assert await reads.finished(scene.db, []) == []


async def test_people_see_each_job_once_in_the_view(scene: Scene):
    jobs = await one_of_each(scene)
    rows = await scene.db.fetch("SELECT id, type, payload, status, result, reason FROM public.jobs")
    shown = {row["id"]: row["status"] for row in rows}
    assert len(rows) == 5
    assert shown == {
        job: "pending" if place in ("ready", "scheduled") else place for place, job in jobs.items()
    }
