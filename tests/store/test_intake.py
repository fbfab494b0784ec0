"""Creates: what is answered is committed, a poison row fails alone, and one key with one body is one job."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import UUID

import pytest

from jobyard.domain.errors import (
    DatabaseUnavailable,
    IdempotencyMismatch,
    InvalidJob,
    JobyardError,
    Overloaded,
    TooManyLanes,
)
from jobyard.domain.lifecycle import Retry
from jobyard.store import database as db
from jobyard.store import dispatch
from jobyard.store.intake import FLUSH_ROWS, Answer, Created
from jobyard.store.lanes import Lanes
from store.scene import Scene, a_job, ending, keyed, until

NUL_IN_JSONB = '{"k":"\\u0000"}'


def ids(answers: list[Answer]) -> list[UUID]:
    return [answer.id for answer in answers if isinstance(answer, Created)]


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


# Idempotency


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


# Wake-ups


@pytest.fixture
async def wakes(scene: Scene):
    """The notifications so far, each as (lanes, workers)."""
    heard = list[tuple[str, str]]()

    def hear(_connection: object, _pid: int, _channel: str, payload: str) -> None:
        lanes, _, workers = payload.partition("|")
        heard.append((lanes, workers))

    async with scene.pool.acquire() as connection:
        await connection.add_listener("jobyard_ready", hear)

        async def so_far() -> list[tuple[str, str]]:
            # Notifications of earlier commits arrive before the answer of a later statement.
            await connection.execute("SELECT 1")
            return heard

        yield so_far
        await connection.remove_listener("jobyard_ready", hear)


async def idle_worker(scene: Scene, *types: str) -> int:
    worker = await scene.worker(*types)
    await dispatch.set_idle(scene.db, worker, True)
    return worker


async def test_a_new_lane_is_told_to_everybody(scene: Scene, wakes):
    await scene.add()
    assert await wakes() == [("1", "*")]


async def test_a_new_lane_is_told_even_if_its_first_job_waits(scene: Scene, wakes):
    """A worker that is busy elsewhere would else not know of the lane when the job comes due."""
    await scene.add(delay_seconds=60.0)
    assert await wakes() == [("1", "*")]


async def test_a_new_lane_is_told_even_if_its_first_flush_held_a_poison_row(scene: Scene, wakes):
    await scene.intake().create_many([a_job(metadata=NUL_IN_JSONB), a_job()])
    assert await wakes() == [("1", "*")]


async def test_nobody_is_woken_where_nobody_is_idle(scene: Scene, wakes):
    await scene.add()
    await scene.worker("email")
    await idle_worker(scene, "report")
    await scene.expire(await idle_worker(scene, "email"))
    await scene.add(10)
    assert len(await wakes()) == 1


async def test_an_idle_worker_of_the_type_is_woken_once_a_flush(scene: Scene, wakes):
    await scene.add()
    worker = await idle_worker(scene, "email", "report")
    await scene.add(100)
    assert (await wakes())[1:] == [("1", str(worker))]


async def test_a_worker_that_is_no_longer_idle_is_not_woken(scene: Scene, wakes):
    await scene.add()
    worker = await idle_worker(scene, "email")
    await dispatch.set_idle(scene.db, worker, False)
    await scene.add()
    assert len(await wakes()) == 1


async def test_one_job_wakes_one_of_a_hundred_idle_workers(scene: Scene, wakes):
    """F07."""
    await scene.add()
    for _ in range(100):
        await idle_worker(scene)
    await scene.add()
    await scene.add(64)
    named = [workers.split(",") for _, workers in (await wakes())[1:]]
    assert [len(workers) for workers in named] == [1, 5]


async def test_a_flush_over_several_lanes_wakes_once_and_names_them(scene: Scene, wakes):
    for priority in (1, 2, 3):
        await scene.add(priority=priority)
    worker = await idle_worker(scene)
    await scene.intake().create_many([a_job(priority=priority) for priority in (3, 1, 3)])
    assert (await wakes())[3:] == [("1,3", str(worker))]


async def test_a_job_that_waits_wakes_nobody(scene: Scene, wakes):
    await scene.add()
    await idle_worker(scene)
    await scene.add(delay_seconds=60.0)
    assert len(await wakes()) == 1


async def test_a_release_wakes_an_idle_worker_and_a_retry_to_come_does_not(scene: Scene, wakes):
    await scene.add(2)
    first, second = await scene.claim(await scene.worker())
    worker = await idle_worker(scene)
    await dispatch.hand_back(scene.db, scene.lanes, [ending(first, Retry(after=60.0))])
    assert len(await wakes()) == 1
    await dispatch.hand_back(scene.db, scene.lanes, [ending(second)])
    assert (await wakes())[1:] == [("1", str(worker))]


async def test_every_answer_is_an_error_of_ours_or_a_job(scene: Scene):
    answers = await scene.intake().create_many(
        [a_job(), a_job(metadata=NUL_IN_JSONB), keyed("k"), keyed("k", "other")]
    )
    assert all(isinstance(answer, Created | JobyardError) for answer in answers)
    assert [isinstance(answer, Created) for answer in answers] == [True, False, True, False]
