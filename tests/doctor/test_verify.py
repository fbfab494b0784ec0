"""`jobyard verify` finds each kind of violation when it is planted, and none on a database at work."""

from __future__ import annotations

import asyncio
import json
from uuid import UUID

import pytest

from jobyard import doctor
from jobyard.config import Settings
from jobyard.doctor import verification
from jobyard.domain.lifecycle import Retry, Succeeded
from jobyard.store import audit, dispatch
from jobyard.store.audit import Found, Violation
from store.scene import Scene, ending

MOVES = {
    "ready": "INSERT INTO jobyard.ready (lane, run, attempt, crashes, job) VALUES (1, $2, 0, 0, $1)",
    "scheduled": "INSERT INTO jobyard.scheduled (job, run_at, lane, run, attempt, crashes) VALUES ($1, now(), 1, $2, 0, 0)",
    "active": "INSERT INTO jobyard.active (job, lease, worker, deadline, tenant, lane, run, attempt, crashes)"
    " VALUES ($1, 1, 1, now(), 1, 1, $2, 1, 0)",
    "done": "INSERT INTO jobyard.done (job, run, attempt, tenant, status) VALUES ($1, $2, 1, 1, 'completed')",
}


async def put(scene: Scene, job: UUID, place: str, run: int = 1) -> None:
    await scene.db.execute(MOVES[place], job, run)


async def violations(scene: Scene, rows: int = audit.PAGE_ROWS) -> list[Found]:
    pages = [page for walk in (audit.jobs, audit.places) async for page in walk(scene.db, rows)]
    return [found for page in pages for found in page.found]


async def test_jobs_in_every_place_and_in_every_run_are_in_order(scene: Scene):
    (again,) = await scene.add_finished()
    await scene.add(3)
    await scene.add(2, delay_seconds=60.0)
    await put(scene, again, "ready", run=2)
    attempts = await scene.claim(await scene.worker(), 3)
    await dispatch.hand_back(scene.db, scene.lanes, [ending(attempts[0], Retry(60.0))])
    await dispatch.settle(scene.db, [ending(attempts[1], Succeeded())])
    assert await violations(scene) == []


async def test_a_job_that_stands_nowhere_is_found(scene: Scene):
    lost, _ = await scene.add(2)
    await scene.db.execute("DELETE FROM jobyard.ready WHERE job = $1", lost)
    assert await violations(scene) == [Found(Violation.NOWHERE, lost, [])]


@pytest.mark.parametrize("other", ["scheduled", "active"])
async def test_a_job_that_stands_twice_is_found(scene: Scene, other: str):
    (twice,) = await scene.add()
    await put(scene, twice, other)
    assert await violations(scene) == [Found(Violation.TWICE, twice, ["ready", other])]


@pytest.mark.parametrize("place", ["ready", "scheduled", "active"])
@pytest.mark.parametrize("run_of_end", [1, 2])
async def test_a_run_that_is_over_and_goes_on_is_found(scene: Scene, place: str, run_of_end: int):
    (job,) = await scene.add()
    await scene.db.execute("DELETE FROM jobyard.ready")
    await put(scene, job, "done", run_of_end)
    await put(scene, job, place, 1)
    assert await violations(scene) == [Found(Violation.OVER_AND_LIVE, job, [place, "done"])]


@pytest.mark.parametrize("place", list(MOVES))
async def test_a_place_without_a_job_is_found(scene: Scene, place: str):
    (job,) = await scene.add()
    await scene.db.execute("DELETE FROM jobyard.ready; DELETE FROM jobyard.job")
    await put(scene, job, place)
    assert await violations(scene) == [Found(Violation.STRAY, job, [place])]


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
            for walk in (audit.jobs, audit.places):
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
    assert capsys.readouterr().out == "looked at 3 jobs and 3 places: each job is in exactly one place\n"


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
    assert lines[0] == f"{jobs[0]}  nowhere: the job stands in no place: it was accepted and is lost"
    assert lines[2:] == ["and 1 more", "looked at 3 jobs and 0 places: 3 violations"]
    assert await asyncio.to_thread(verify, scene, as_json=True) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["examined"], told["violations"]) == ({"jobs": 3, "places": 0}, {"nowhere": 3})
    assert told["found"][0] == {"violation": "nowhere", "job": str(jobs[0]), "places": []}
