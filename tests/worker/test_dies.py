"""A worker process, or a child of one, that dies with jobs in its hands: all come back, and only the one to blame is
charged; and no child outlives its worker."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from jobyard.clock import SystemClock
from jobyard.domain.retry import Backoff
from jobyard.maintain.maintainer import CONNECTIONS, Maintainer
from jobyard.store import upkeep
from jobyard.store.database import open_pool
from processes.program import Program, program
from worker.processes import runs, until_noted
from worker.yard import Yard, until

LEASE_SECONDS = 1.0
SWEEP_BOUND_SECONDS = 5.0


def worker_process(
    folder: Path, yard: Yard, app: str = "dangerous_jobs", **settings: str
) -> AbstractContextManager[Program]:
    return program(
        folder,
        "worker",
        "--app",
        app,
        **{
            "DATABASE_URL": yard.url,
            "JOBYARD_HOME": str(folder),
            "JOBYARD_LEASE_SECONDS": str(LEASE_SECONDS),
            "JOBYARD_CONCURRENCY": "8",
        }
        | settings,
    )


async def test_jobs_of_a_killed_worker_are_back_uncharged_as_suspects_within_lease_and_sweep(
    yard: Yard, tmp_path: Path
) -> None:
    jobs = await yard.add("hold", count=3) + await yard.add("hold in a thread")
    pool = await open_pool(yard.url, size=CONNECTIONS, hot=True)
    maintainer = Maintainer(pool, SystemClock(), 7, 90)
    maintaining = asyncio.create_task(maintainer.run())
    with worker_process(tmp_path, yard) as worker:
        await until(lambda: yard.db.fetchval("SELECT count(*) = 4 FROM jobyard.active"), "all run")
        killed_at = await yard.db.fetchval("SELECT now()")
        worker.tell(signal.SIGKILL)
        await worker.end()
        await until(lambda: yard.db.fetchval("SELECT count(*) = 4 FROM jobyard.ready"), "all are back")
    maintainer.stop()
    await maintaining
    took = await yard.db.fetchval(
        "SELECT max(extract(epoch FROM ended_at - $1))::float8 FROM jobyard.attempt", killed_at
    )
    assert took < 2 * (LEASE_SECONDS + SWEEP_BOUND_SECONDS)
    rows = await yard.db.fetch(
        "SELECT r.attempt, r.crashes, l.suspect FROM jobyard.ready r JOIN jobyard.lane l ON l.id = r.lane"
    )
    assert [tuple(row) for row in rows] == [(0, 0, 1)] * 4
    for job in jobs:
        assert await yard.tries(job) == [(1, "orphan")]


async def test_a_job_that_kills_its_process_kills_one_worker_and_three_children_and_its_neighbours_complete(
    yard: Yard, tmp_path: Path
) -> None:
    neighbours = await yard.add("neighbour", count=6)
    (poison,) = await yard.add("poison", max_attempts=2, backoff=Backoff(0.001, 0.001))
    with worker_process(tmp_path, yard) as worker:
        await _until_dead(yard, worker)
    await _take_back_what_the_dead_held(yard)
    with worker_process(tmp_path, yard) as worker:

        async def all_ended() -> bool:
            await upkeep.promote(yard.db)
            return await yard.count("job") == await yard.count("done")

        await until(all_ended, "all jobs ended", 30)
        assert not worker.over
    end = await yard.end_of(poison)
    assert (end["reason"], end["attempt"]) == ("crashed", 1)
    assert json.loads(end["error"]) == {
        "type": "Crash",
        "message": "the process running this job was killed by SIGKILL (crash 3 of 3)",
    }
    assert [outcome for _, outcome in await yard.tries(poison)] == ["orphan", "crash", "crash"]
    for job in neighbours:
        end = await yard.end_of(job)
        assert (end["status"], end["attempt"], end["result"]) == ("completed", 1, "1")
        assert {outcome for _, outcome in await yard.tries(job)} <= {"orphan"}


async def test_a_job_that_kills_the_worker_from_its_child_is_found_as_a_solitary_one(
    yard: Yard, tmp_path: Path
) -> None:
    (poison,) = await yard.add("kill the worker", max_attempts=2, backoff=Backoff(0.001, 0.001))
    deaths = 0
    while await yard.status(poison) != "failed":
        with worker_process(tmp_path, yard, "child_jobs") as worker:
            await _until_dead(yard, worker)
        deaths += 1
        assert deaths <= 5, "two deaths find the suspect, three are charged"
        await _take_back_what_the_dead_held(yard)
    end = await yard.end_of(poison)
    assert (end["reason"], deaths) == ("crashed", 5)
    assert json.loads(end["error"])["message"] == "the worker died while running this job (crash 3 of 3)"
    assert [outcome for _, outcome in await yard.tries(poison)] == ["orphan", "orphan", "crash", "crash"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
async def test_the_children_of_a_worker_that_dies_die_with_it(
    yard: Yard, tmp_path: Path, number: signal.Signals
) -> None:
    notes = tmp_path / "notes"
    await yard.add("block", count=2, payload=str(notes))
    await yard.add("stubborn", payload=str(notes))
    with worker_process(tmp_path, yard, "child_jobs") as worker:
        pids = await until_noted(notes, 3)
        worker.tell(number)
        await worker.end()
        await until(lambda: not any(map(runs, pids)), "the children are gone")


async def test_a_second_signal_ends_the_worker_and_its_children_at_once(yard: Yard, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    await yard.add("stubborn", count=2, payload=str(notes))
    with worker_process(tmp_path, yard, "child_jobs", JOBYARD_GRACE_SECONDS="60") as worker:
        pids = await until_noted(notes, 2)
        worker.tell(signal.SIGTERM)
        await until(lambda: "worker.draining" in worker.said, "it drains")
        assert all(map(runs, pids))
        assert (await worker.end_after(signal.SIGTERM))[0] != 0
        await until(lambda: not any(map(runs, pids)), "the children are gone")


async def test_a_worker_that_ends_in_time_hands_back_what_its_children_ran_and_leaves_none(
    yard: Yard, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    jobs = await yard.add("block", payload=str(notes)) + await yard.add("stubborn", payload=str(notes))
    with worker_process(tmp_path, yard, "child_jobs", JOBYARD_GRACE_SECONDS="0.5") as worker:
        pids = await until_noted(notes, 2)
        code, seconds = await worker.end_after(signal.SIGTERM)
        assert code == 0
        assert seconds < 2 * (0.5 + 1)
        await until(lambda: not any(map(runs, pids)), "the children are gone")
    for job in jobs:
        assert await yard.tries(job) == [(1, "release")]
        assert await yard.status(job) == "pending"


async def test_a_frozen_worker_that_lost_its_leases_kills_its_children_and_writes_nothing(
    yard: Yard, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    (job,) = await yard.add("block", payload=str(notes))
    with worker_process(tmp_path, yard, "child_jobs") as worker:
        (pid,) = await until_noted(notes)
        worker.tell(signal.SIGSTOP)
        await _take_back_what_the_dead_held(yard)
        assert await yard.tries(job) == [(1, "orphan")]
        await yard.db.execute("DELETE FROM jobyard.ready")  # for no worker to start it again
        worker.tell(signal.SIGCONT)
        await until(lambda: not runs(pid), "its child is killed")
        assert await yard.tries(job) == [(1, "orphan")]
        assert await yard.count("done") == 0
        assert "cleaned up" not in notes.read_text()
        (after,) = await yard.add("do", payload=["echo", "at work"])
        assert (await yard.end_of(after))["status"] == "completed"


async def test_a_worker_process_with_a_stuck_thread_in_each_slot_exits_with_70_and_the_next_goes_on(
    yard: Yard, tmp_path: Path
) -> None:
    stuck = await yard.add("hold in a thread", count=2, timeout_seconds=0.2, max_attempts=1)
    with worker_process(tmp_path, yard, JOBYARD_CONCURRENCY="2") as worker:
        assert await worker.end() == 70
        assert "worker.stuck" in worker.said
    for job in stuck:
        assert (await yard.end_of(job))["reason"] == "timeout"
    (after,) = await yard.add("neighbour")
    with worker_process(tmp_path, yard, JOBYARD_CONCURRENCY="2"):
        assert (await yard.end_of(after))["status"] == "completed"


async def _until_dead(yard: Yard, worker: Program) -> None:
    """While it lives, retries come due."""

    async def dead() -> bool:
        await upkeep.promote(yard.db)
        return worker.over

    await until(dead, "the worker dies", 30)


async def _take_back_what_the_dead_held(yard: Yard) -> None:
    await yard.db.execute("UPDATE jobyard.worker SET expires_at = now()")
    await upkeep.sweep(yard.db, yard.lanes)


@pytest.mark.parametrize("type", ["leave", "leave in a thread"])
async def test_a_handler_that_exits_or_interrupts_does_not_take_the_process_with_it(
    yard: Yard, tmp_path: Path, type: str
) -> None:
    (exits,) = await yard.add(type, payload="exit", max_attempts=1)
    (interrupts,) = await yard.add(type, payload="interrupt", max_attempts=1)
    (after,) = await yard.add("neighbour")
    with worker_process(tmp_path, yard) as worker:
        assert json.loads((await yard.end_of(exits))["error"])["type"] == "SystemExit"
        assert json.loads((await yard.end_of(interrupts))["error"])["type"] == "KeyboardInterrupt"
        assert (await yard.end_of(after))["status"] == "completed"
        assert (await worker.end_after(signal.SIGTERM))[0] == 0


@pytest.mark.parametrize("type", ["hold", "hold in a thread", "ignore cancellation"])
async def test_a_worker_process_ends_in_time_with_its_job_handed_back(
    yard: Yard, tmp_path: Path, type: str
) -> None:
    (job,) = await yard.add(type)
    with worker_process(tmp_path, yard, JOBYARD_GRACE_SECONDS="0.5") as worker:
        await until(lambda: yard.count("active"), "it runs")
        code, seconds = await worker.end_after(signal.SIGTERM)
    assert code == 0
    assert seconds < 2 * (0.5 + 1)
    assert await yard.tries(job) == [(1, "release")]
    assert await yard.status(job) == "pending"
    assert await yard.count("worker") == 0
