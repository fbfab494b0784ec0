"""Creates: what is answered is committed, a poison row fails alone, and one key with one body is one job."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest

from jobyard.domain.errors import (
    DatabaseUnavailable,
    InvalidJob,
    JobyardError,
    Overloaded,
    TooManyLanes,
)
from jobyard.domain.job import NewJob
from jobyard.ids import new_job_id
from jobyard.store import database as db
from jobyard.store import intake
from jobyard.store.intake import FLUSH_ROWS, Created
from jobyard.store.lanes import Lanes
from store.scene import NUL_IN_JSONB, Scene, a_job, ids, keyed, until

# What is created


async def test_a_created_job_is_ready_and_told(scene: Scene):
    job = a_job()
    assert await scene.intake().create(job) == Created(job.id, replayed=False)
    assert await scene.tables_of(job.id) == ["ready"]
    assert await scene.standing_of(job.id) == ("pending", None, 0)
    event = await scene.db.fetchrow("SELECT * FROM jobyard.event")
    assert event is not None
    assert (event["kind"], event["jobs"], event["attempts"]) == ("created", [job.id], [0])
    assert event["xid"] == await scene.db.fetchval("SELECT xmin::text::int8 FROM jobyard.job")


async def test_the_payload_is_kept_byte_by_byte(scene: Scene):
    payload = '{"b" : 1.50,\n "a":"\\u00e9 é", "a": 1e400, "n":"\\u0000"}'
    await scene.intake().create(a_job(payload=payload))
    assert await scene.db.fetchval("SELECT payload FROM jobyard.job") == payload


async def test_a_delay_is_counted_by_the_clock_of_the_database(scene: Scene):
    job = a_job(delay_seconds=90.0)
    await scene.intake().create(job)
    waits = (
        "SELECT extract(epoch FROM s.run_at - j.created_at)::float8 FROM jobyard.scheduled s, jobyard.job j"
    )
    assert await scene.tables_of(job.id) == ["scheduled"]
    assert await scene.db.fetchval(waits) == 90.0


async def test_a_time_to_come_is_waited_for_and_one_that_has_passed_is_not(scene: Scene):
    now = datetime.now(UTC)
    later, earlier = a_job(run_at=now + timedelta(hours=1)), a_job(run_at=now - timedelta(hours=1))
    await scene.intake().create_many([later, earlier])
    assert await scene.tables_of(later.id) == ["scheduled"]
    assert await scene.tables_of(earlier.id) == ["ready"]
    assert await scene.db.fetchval("SELECT run_at FROM jobyard.scheduled") == later.run_at
    assert await scene.events() == [("created", 2)]


async def test_jobs_of_one_flush_are_answered_in_the_order_given(scene: Scene):
    jobs = [a_job(priority=number % 10) for number in range(50)]
    assert ids(await scene.intake().create_many(jobs)) == [job.id for job in jobs]
    assert await scene.events() == [("created", 50)]


async def test_nothing_to_create_creates_nothing(scene: Scene):
    assert await scene.intake().create_many([]) == []
    assert await scene.events() == []


# Flushes


async def test_a_crowd_shares_its_commits(scene: Scene):
    """At most two flushes are in flight; what comes meanwhile gathers, up to a bound of rows."""
    intake = scene.intake(queue_limit=2000)
    await scene.add()
    async with scene.locked("job"):
        first = [asyncio.create_task(intake.create(a_job())) for _ in range(1)]
        await until(lambda: _blocked(scene, 1))
        second = [asyncio.create_task(intake.create(a_job())) for _ in range(1)]
        await until(lambda: _blocked(scene, 2))
        crowd = [asyncio.create_task(intake.create(a_job())) for _ in range(FLUSH_ROWS + 40)]
        await asyncio.sleep(0)
        assert await scene.blocked() == 2
    await asyncio.gather(*first, *second, *crowd)
    flushes = sorted(jobs for _, jobs in await scene.events())
    assert flushes == [1, 1, 1, 40, FLUSH_ROWS]


async def _blocked(scene: Scene, count: int) -> bool:
    return await scene.blocked() == count


async def test_a_create_between_the_end_of_two_flushes_and_their_goodbye_is_not_left_waiting(scene: Scene):
    """Both answers are read in one turn of the loop, so the client of the first creates again before anybody
    has noticed that both flushes are over."""
    intake = scene.intake()
    # Two connections that have prepared the statement, so that its answer is all that is left to come.
    await asyncio.gather(*(intake.create_many([a_job(), a_job()]) for _ in range(2)))

    async def twice() -> Created:
        await intake.create(a_job())
        return await intake.create(a_job())

    with LockHeldElsewhere(scene.url) as lock:
        both = [asyncio.create_task(twice())]
        await until(lambda: _blocked(scene, 1))
        both.append(asyncio.create_task(intake.create(a_job())))
        await until(lambda: _blocked(scene, 2))
        lock.release_while_this_loop_stands_still()
    async with asyncio.timeout(5):
        await asyncio.gather(*both)
    assert await scene.count("job") == 7


class LockHeldElsewhere:
    """A lock on the table of jobs, held by a thread with a loop of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._held, self._release = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._hold()))

    def __enter__(self) -> LockHeldElsewhere:
        self._thread.start()
        assert self._held.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.release_while_this_loop_stands_still()

    def release_while_this_loop_stands_still(self) -> None:
        """Returns when the server has answered everyone who waited."""
        self._release.set()
        self._thread.join()

    async def _hold(self) -> None:
        connection = await db.connect(self._url, hot=True, name="lock")
        async with connection.transaction():
            await connection.execute("LOCK TABLE jobyard.job IN ACCESS EXCLUSIVE MODE")
            self._held.set()
            assert self._release.wait(10)
        busy = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()"
        )

        async def all_answered() -> bool:
            return await connection.fetchval(busy) == 0

        await until(all_answered)
        await connection.close()


async def test_drain_returns_when_everything_handed_in_is_committed(scene: Scene):
    intake = scene.intake()
    creates = [asyncio.create_task(intake.create(a_job())) for _ in range(700)]
    await asyncio.sleep(0)
    await intake.drain()
    assert await scene.count("job") == 700
    assert len(await asyncio.gather(*creates)) == 700


async def test_the_row_of_a_client_that_went_away_commits_all_the_same(scene: Scene):
    intake, (gone, stays) = scene.intake(), (a_job(), a_job())
    async with scene.locked("job"):
        leaving = asyncio.create_task(intake.create(gone))
        staying = asyncio.create_task(intake.create(stays))
        await until(scene.blocked)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert leaving.cancelled()
    assert await staying == Created(stays.id)
    await intake.drain()
    assert await scene.tables_of(gone.id) == ["ready"]


async def test_500_clients_that_vanish_leave_the_pool_whole_and_no_transaction_open(scene: Scene):
    """F24."""
    intake = scene.intake()
    creates = [asyncio.create_task(intake.create(a_job())) for _ in range(500)]
    await asyncio.sleep(0)
    for task in creates[::2]:
        task.cancel()
    await asyncio.gather(*creates, return_exceptions=True)
    await intake.drain()
    assert await scene.count("job") == 500
    idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in tr%'"
    assert await scene.db.fetchval(idle) == 0
    assert scene.pool.get_idle_size() == scene.pool.get_size()


async def test_a_full_queue_refuses_and_takes_again_when_it_has_room(scene: Scene):
    intake = scene.intake(queue_limit=5)
    async with scene.locked("job"):
        taken = [asyncio.create_task(intake.create(a_job())) for _ in range(2)]
        await until(lambda: _blocked(scene, 1))
        taken += [asyncio.create_task(intake.create(a_job())) for _ in range(6)]
        await until(lambda: _blocked(scene, 2))
        taken += [asyncio.create_task(intake.create(a_job())) for _ in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="5 creates"):
            await intake.create(a_job())
    answers = await asyncio.gather(*taken, return_exceptions=True)
    created = [answer for answer in answers if isinstance(answer, Created)]
    assert await scene.count("job") == len(created)
    assert all(isinstance(answer, Created | Overloaded) for answer in answers)
    assert await intake.create(a_job())


async def test_the_jobs_of_a_bulk_count_in_the_queue_and_a_lone_bulk_is_always_taken(scene: Scene):
    intake = scene.intake(queue_limit=5)
    async with scene.locked("job"):
        taken = [asyncio.create_task(intake.create_many([a_job() for _ in range(8)]))]
        await until(lambda: _blocked(scene, 1))
        with pytest.raises(Overloaded, match="5 creates"):
            await intake.create_many([a_job()])
        with pytest.raises(Overloaded, match="5 creates"):
            await intake.create(a_job())
    assert len(ids(await taken[0])) == 8
    async with scene.locked("job"):
        taken = [asyncio.create_task(intake.create_many([a_job() for _ in range(3)]))]
        await until(lambda: _blocked(scene, 1))
        with pytest.raises(Overloaded, match="5 creates"):
            await intake.create_many([a_job() for _ in range(3)])
        taken.append(asyncio.create_task(intake.create_many([a_job() for _ in range(2)])))
    assert [len(ids(await it)) for it in taken] == [3, 2]
    assert len(ids(await intake.create_many([a_job() for _ in range(5)]))) == 5


# The database refuses, or is gone


@pytest.mark.parametrize(
    "poison",
    [
        {"metadata": NUL_IN_JSONB},
        {"payload": "{"},
        {"type": "\x00"},
        {"trace": "\ud800"},
        {"priority": 1 << 20},
        {"timeout_seconds": "soon"},
    ],
    ids=["NUL in jsonb", "not JSON", "NUL in text", "lone surrogate", "number out of range", "not a number"],
)
async def test_a_poison_row_fails_alone(scene: Scene, poison: dict[str, object]):
    """F01. The server refuses some of these, and the driver others before they are sent."""
    jobs = [a_job() for _ in range(20)]
    jobs[7] = a_job(**poison)
    answers = await scene.intake().create_many(jobs)
    assert [number for number, answer in enumerate(answers) if isinstance(answer, InvalidJob)] == [7]
    assert ids(answers) == [job.id for job in jobs if job is not jobs[7]]
    assert await scene.count("job") == await scene.count("ready") == 19


async def test_a_flush_of_nothing_but_poison_answers_each(scene: Scene):
    answers = await scene.intake().create_many([a_job(metadata=NUL_IN_JSONB) for _ in range(5)])
    assert all(isinstance(answer, InvalidJob) for answer in answers)
    assert await scene.events() == []


async def test_a_poison_row_of_a_single_create_is_raised_to_its_client(scene: Scene):
    intake = scene.intake()
    with pytest.raises(InvalidJob, match="the database refused it"):
        await intake.create(a_job(metadata=NUL_IN_JSONB))
    assert await intake.create(a_job())


async def test_a_lane_too_many_fails_alone(scene: Scene):
    intake = scene.intake(lanes=Lanes(limit_per_tenant=2))
    answers = await intake.create_many([a_job(queue=f"q{number}") for number in range(3)])
    assert [type(answer) for answer in answers] == [Created, Created, TooManyLanes]
    assert isinstance(answers[2], TooManyLanes)
    assert answers[2].pointer == "/queue"
    assert await scene.count("lane") == await scene.count("job") == 2
    assert isinstance(await intake.create(a_job(queue="q0")), Created)


async def test_each_tenant_has_lanes_of_its_own(scene: Scene):
    intake = scene.intake(lanes=Lanes(limit_per_tenant=1))
    answers = await intake.create_many([a_job(tenant=1), a_job(tenant=2)])
    assert len(ids(answers)) == 2
    assert await scene.count("lane") == 2
    assert await scene.events() == [("created", 1), ("created", 1)]


async def test_lanes_of_suspects_do_not_use_up_the_lanes_of_the_tenant(scene: Scene):
    """The sweep has to be able to make one whatever the tenant has used, or its orphans would never come back."""
    lanes = Lanes(limit_per_tenant=1)
    first, second = a_job(), a_job(queue="another")
    _, made = await lanes.id_of(scene.db, first.lane)
    _, suspect_made = await lanes.id_of(scene.db, first.lane.at_level(1))
    assert (made, suspect_made) == (True, True)
    with pytest.raises(TooManyLanes):
        await lanes.id_of(scene.db, second.lane)
    _, made = await Lanes(limit_per_tenant=2).id_of(scene.db, second.lane)
    assert made


async def test_processes_that_meet_a_new_lane_at_once_agree_on_it(scene: Scene):
    answers = await asyncio.gather(
        *(scene.intake(lanes=Lanes()).create(a_job(queue="new")) for _ in range(8)), return_exceptions=True
    )
    assert [answer for answer in answers if not isinstance(answer, Created)] == []
    assert await scene.count("lane") == 1


async def test_a_database_that_does_not_answer_is_told_to_every_client(scene: Scene):
    intake = scene.intake(timeout=0.05)
    held = [await scene.pool.acquire() for _ in range(8)]
    answers = await asyncio.gather(*(intake.create(a_job()) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [DatabaseUnavailable] * 3
    with pytest.raises(DatabaseUnavailable):
        await intake.create_many([a_job(), a_job()])
    for connection in held:
        await scene.pool.release(connection)
    assert await intake.create(a_job())
    assert await scene.count("job") == 1


async def test_a_connection_that_is_cut_during_a_flush_is_told_and_the_next_create_works(scene: Scene):
    intake = scene.intake()
    async with scene.locked("job"):
        create = asyncio.create_task(intake.create(a_job()))
        await until(scene.blocked)
        await scene.db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
        )
        with pytest.raises(DatabaseUnavailable):
            await create
    assert await intake.create(a_job())


async def test_every_answer_is_an_error_of_ours_or_a_job(scene: Scene):
    answers = await scene.intake().create_many(
        [a_job(), a_job(metadata=NUL_IN_JSONB), keyed("k"), keyed("k", "other")]
    )
    assert all(isinstance(answer, Created | JobyardError) for answer in answers)
    assert [isinstance(answer, Created) for answer in answers] == [True, False, True, False]


async def test_a_flush_carries_no_more_bytes_of_payloads_than_the_server_takes(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(intake, "FLUSH_BYTES", 1000)
    maker = intake.Intake(scene.pool, Lanes(), queue_limit=100, timeout=10)
    sizes = [398] * 8 + [5000]
    jobs = [NewJob(new_job_id(), "t", '"%s"' % ("x" * size)) for size in sizes]
    await asyncio.gather(*map(maker.create, jobs))
    by_id = {job.id: len(job.payload) for job in jobs}
    flushes = [
        row["jobs"] for row in await scene.db.fetch("SELECT jobs FROM jobyard.event WHERE kind = 'created'")
    ]
    assert sorted(id for flush in flushes for id in flush) == sorted(by_id)
    assert all(len(flush) == 1 or sum(by_id[id] for id in flush) <= 1000 for flush in flushes)
