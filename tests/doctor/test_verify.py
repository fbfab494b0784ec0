"""`jobyard verify` finds each kind of violation when it is planted, and none on a database at work."""

from __future__ import annotations

import asyncio
import json
from uuid import UUID

import pytest

from jobyard import doctor
from jobyard.config import Settings
from jobyard.doctor import verification
from jobyard.domain.lifecycle import Fail, Retry, Succeeded
from jobyard.store import audit, audit_log, dispatch, verbs
from jobyard.store.audit import Found, Violation
from store.scene import Scene, ending

MOVES = {
    "ready": "INSERT INTO jobyard.ready (lane, run, attempt, crashes, job) VALUES (1, $2, 0, 0, $1)",
    "scheduled": "INSERT INTO jobyard.scheduled (job, run_at, lane, run, attempt, crashes) VALUES ($1, now(), 1, $2, 0, 0)",
    "active": "INSERT INTO jobyard.active (job, lease, worker, deadline, tenant, lane, run, attempt, crashes)"
    " VALUES ($1, 1000000, 1, now(), 1, 1, $2, 1, 0)",
    "done": "INSERT INTO jobyard.done (job, run, attempt, tenant, status) VALUES ($1, $2, 1, 1, 'completed')",
}


async def put(scene: Scene, job: UUID, place: str, run: int = 1) -> None:
    await scene.db.execute(MOVES[place], job, run)


async def violations(scene: Scene, rows: int = audit.PAGE_ROWS) -> list[Found]:
    pages = [page for walk in (audit.jobs, audit.places) async for page in walk(scene.db, rows)]
    return [found for page in pages for found in page.found]


async def told(scene: Scene) -> list[tuple[Violation, UUID, int | None]]:
    return [(it.violation, it.job, it.run) for it in await violations(scene)]


async def test_jobs_in_every_place_and_in_every_run_are_in_order(scene: Scene):
    (again,) = await scene.add_finished(outcome=Fail("no"))
    await scene.add(3)
    await scene.add(2, delay_seconds=60.0)
    await verbs.retry(scene.db, again, 1)
    attempts = await scene.claim(await scene.worker(), 3)
    await dispatch.hand_back(scene.db, scene.lanes, [ending(attempts[0], Retry(60.0))])
    await dispatch.settle(scene.db, [ending(attempts[1], Succeeded())])
    assert await violations(scene) == []


async def test_a_job_that_stands_nowhere_is_found(scene: Scene):
    lost, _ = await scene.add(2)
    await scene.db.execute("DELETE FROM jobyard.ready WHERE job = $1", lost)
    assert await violations(scene) == [
        Found(Violation.NOWHERE, lost, "in none of ready, scheduled, active and done")
    ]


async def test_a_job_that_is_lost_after_a_retry_is_found(scene: Scene):
    """To everybody who looks at the job it has failed, and that is all."""
    (job,) = await scene.add_finished(outcome=Fail("no"))
    await verbs.retry(scene.db, job, 1)
    assert await violations(scene) == []
    await scene.db.execute("DELETE FROM jobyard.ready")
    assert await told(scene) == [(Violation.NOWHERE, job, 2)]


@pytest.mark.parametrize("place", list(MOVES))
async def test_a_completed_job_that_lives_again_is_found(scene: Scene, place: str):
    (job,) = await scene.add_finished()
    await put(scene, job, place, run=2)
    assert await told(scene) == [(Violation.REOPENED, job, 1)]


async def test_a_lease_with_two_outcomes_is_found(scene: Scene):
    (job,) = await scene.add()
    attempt = await scene.claim_one()
    await dispatch.hand_back(scene.db, scene.lanes, [ending(attempt, Retry())])
    assert await violations(scene) == []
    await scene.db.execute("DELETE FROM jobyard.scheduled")
    await scene.db.execute(
        "INSERT INTO jobyard.done (job, run, attempt, lease, tenant, status) VALUES ($1, 1, 1, $2, 1, 'completed')",
        job,
        attempt.lease,
    )
    assert await told(scene) == [(Violation.TWO_OUTCOMES, job, 1)]


async def test_an_attempt_after_the_end_of_its_run_is_found(scene: Scene):
    (job,) = await scene.add_finished()
    await scene.db.execute(
        "INSERT INTO jobyard.attempt (job, lease, run, attempt, worker, started_at, outcome)"
        " SELECT job, lease + 1, run, attempt, worker, started_at, 'release' FROM jobyard.done"
    )
    assert await told(scene) == [(Violation.TWO_OUTCOMES, job, 1)]


@pytest.mark.parametrize("other", ["scheduled", "active"])
async def test_a_job_that_stands_twice_is_found(scene: Scene, other: str):
    (twice,) = await scene.add()
    await put(scene, twice, other)
    assert await violations(scene) == [Found(Violation.TWICE, twice, f"in ready and {other}", 1)]


@pytest.mark.parametrize("place", ["ready", "scheduled", "active"])
@pytest.mark.parametrize("run_of_end", [1, 2])
async def test_a_run_that_is_over_and_goes_on_is_found(scene: Scene, place: str, run_of_end: int):
    (job,) = await scene.add()
    await scene.db.execute("DELETE FROM jobyard.ready")
    await put(scene, job, "done", run_of_end)
    await scene.db.execute("UPDATE jobyard.done SET status = 'failed', reason = 'exhausted'")
    await put(scene, job, place, 1)
    assert await violations(scene) == [Found(Violation.OVER_AND_LIVE, job, f"in {place} and done", 1)]


@pytest.mark.parametrize("place", list(MOVES))
async def test_a_place_without_a_job_is_found(scene: Scene, place: str):
    (job,) = await scene.add()
    await scene.db.execute("DELETE FROM jobyard.ready; DELETE FROM jobyard.job")
    await put(scene, job, place)
    assert await violations(scene) == [Found(Violation.STRAY, job, f"in {place}", 1)]


@pytest.mark.parametrize("rows", [1, 3, 1000])
async def test_every_job_and_place_is_looked_at_in_pages_of_any_size(scene: Scene, rows: int):
    jobs = await scene.add(7)
    await scene.db.execute("DELETE FROM jobyard.ready WHERE job = ANY ($1)", [jobs[0], jobs[3], jobs[6]])
    assert sum([page.examined async for page in audit.jobs(scene.db, rows)]) == 7
    assert sum([page.examined async for page in audit.places(scene.db, rows)]) == 4
    assert [found.job for found in await violations(scene, rows)] == [jobs[0], jobs[3], jobs[6]]


async def test_jobs_that_move_meanwhile_are_never_taken_for_lost(scene: Scene):
    """The moves go on until the database has been read fifty times."""
    await scene.add(200)
    worker = await scene.worker()
    over = asyncio.Event()

    async def move() -> None:
        async with scene.pool.acquire() as connection:
            while not over.is_set():
                attempts = await dispatch.claim(connection, worker, await scene.lane_ids(), [0], 20, 60)
                await dispatch.settle(connection, [ending(it, Succeeded()) for it in attempts[:5]])
                await dispatch.hand_back(connection, scene.lanes, [ending(it) for it in attempts[5:]])
                if not attempts:
                    return

    async with scene.pool.acquire() as reader:
        moving = asyncio.create_task(move())
        found: list[Found] = []
        for _ in range(50):
            for walk in (audit.jobs, audit.places, audit_log.events):
                async for page in walk(reader, 64):
                    found += page.found
        over.set()
        await moving
    assert await scene.count("done") > 0
    assert found == []


# What is told


def verify(scene: Scene, *, as_json: bool = False) -> int:
    return doctor.verify(Settings.read({"DATABASE_URL": scene.url}), as_json=as_json)


async def test_a_good_database_is_told_with_what_was_looked_at(
    scene: Scene, capsys: pytest.CaptureFixture[str]
):
    await scene.add(3)
    assert await asyncio.to_thread(verify, scene) == 0
    assert capsys.readouterr().out == (
        "looked at 3 jobs, 3 places and 1 events:"
        " each job is in exactly one place, and each attempt had one owner and one end\n"
    )


async def test_violations_are_told_one_by_one_up_to_a_bound_and_then_counted(
    scene: Scene,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(verification, "SHOWN", 2)
    jobs = await scene.add(3)
    await scene.db.execute("DELETE FROM jobyard.ready")
    assert await asyncio.to_thread(verify, scene) == 1
    lines = capsys.readouterr().out.splitlines()
    nowhere = "in none of ready, scheduled, active and done"
    assert lines[0] == f"{jobs[0]}  {nowhere}: the job stands in no place: it was accepted and is lost"
    assert lines[2] == "and 1 more"
    assert lines[3].startswith("looked at 3 jobs, 0 places and 1 events: 3 violations; docs/reliability.md")
    assert await asyncio.to_thread(verify, scene, as_json=True) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["examined"] == {"jobs": 3, "places": 0, "events": 1}
    assert told["violations"] == {"nowhere": 3}
    first = {"violation": "nowhere", "job": str(jobs[0]), "evidence": nowhere, "run": None, "lease": None}
    assert told["found"][0] == first
