"""Claim, settle and hand back: every write carries its lease, and a job is in one place at a time."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest

from jobyard.domain.errors import WorkerExpired
from jobyard.domain.lifecycle import Fail, Failed, Outcome, Retry, Succeeded
from jobyard.domain.retry import Backoff
from jobyard.store import dispatch
from store.scene import LEASE, Scene, a_job, ending, until

BOOM = {"type": "Boom", "message": "it went wrong"}


# Claim


async def test_a_claim_brings_what_the_handler_needs(scene: Scene):
    job = a_job(
        payload='{"to":  "user@example.com"}',
        max_attempts=3,
        timeout_seconds=60.0,
        backoff=Backoff(1.5, 90.0),
        tags='["a"]',
        metadata='{"k":"v"}',
        trace="00-1-2-01",
    )
    await scene.intake().create(job)
    attempt = await scene.claim_one()
    assert (attempt.job, attempt.run, attempt.attempt, attempt.crashes) == (job.id, 1, 1, 0)
    assert (attempt.type, attempt.queue, attempt.payload) == ("email", "default", job.payload)
    assert (attempt.max_attempts, attempt.timeout_seconds) == (3, 60.0)
    assert (attempt.backoff_base, attempt.backoff_cap) == (1.5, 90.0)
    assert (attempt.tags, attempt.metadata, attempt.trace) == ('["a"]', '{"k": "v"}', "00-1-2-01")
    assert attempt.created_at == await scene.db.fetchval("SELECT created_at FROM jobyard.job")


async def test_a_claimed_job_is_active_until_its_timeout_and_a_lease_have_passed(scene: Scene):
    (job,) = await scene.add(timeout_seconds=60.0)
    worker = await scene.worker()
    attempt = await scene.claim_one(worker)
    active = await scene.db.fetchrow("SELECT * FROM jobyard.active")
    assert active is not None
    assert await scene.tables_of(job) == ["active"]
    assert (active["lease"], active["worker"], active["attempt"]) == (attempt.lease, worker, 1)
    assert (active["deadline"] - active["claimed_at"]).total_seconds() == 60.0 + LEASE


async def test_a_claim_takes_lanes_in_the_order_given_and_the_oldest_of_each_first(scene: Scene):
    first = await scene.add(3, priority=1)
    second = await scene.add(3, priority=9)
    low, high = await scene.lane_ids()
    worker = await scene.worker()
    urgent = await scene.claim(worker, 2, lanes=[high, low])
    assert [attempt.job for attempt in urgent] == second[:2]
    rest = await scene.claim(worker, 2, lanes=[high, low])
    assert {attempt.job for attempt in rest} == {second[2], first[0]}


async def test_a_claim_takes_no_more_than_its_limit_over_all_lanes(scene: Scene):
    for priority in range(4):
        await scene.add(5, priority=priority)
    assert len(await scene.claim(await scene.worker(), 7)) == 7
    assert await scene.count("ready") == 13


async def test_a_claim_leaves_other_lanes_alone(scene: Scene):
    await scene.add(type="email")
    (other,) = await scene.add(type="report")
    email, _ = await scene.lane_ids()
    assert [attempt.type for attempt in await scene.claim(await scene.worker(), lanes=[email])] == ["email"]
    assert await scene.tables_of(other) == ["ready"]


async def test_a_hint_passes_over_what_stands_before_it_and_a_claim_from_the_beginning_finds_it(scene: Scene):
    jobs = await scene.add(3)
    seqs = [row["seq"] for row in await scene.db.fetch("SELECT seq FROM jobyard.ready ORDER BY seq")]
    worker = await scene.worker()
    assert [a.job for a in await scene.claim(worker, hints=[seqs[1]])] == [jobs[2]]
    assert [a.job for a in await scene.claim(worker, hints=[seqs[2]])] == []
    assert [a.job for a in await scene.claim(worker, hints=[0])] == jobs[:2]


async def test_a_claim_passes_over_rows_that_another_claim_holds(scene: Scene):
    jobs = await scene.add(4)
    lanes, worker = await scene.lane_ids(), await scene.worker()
    async with scene.pool.acquire() as other, other.transaction():
        held = await dispatch.claim(other, worker, lanes, [0], 2, LEASE)
        free = await scene.claim(worker)
    assert {attempt.job for attempt in held} == set(jobs[:2])
    assert [attempt.job for attempt in free] == jobs[2:]


async def test_four_claimers_at_once_take_everything_once(scene: Scene):
    jobs = await scene.add(1000)
    lanes = await scene.lane_ids()

    async def left() -> bool:
        async with scene.pool.acquire() as connection:
            return await connection.fetchval("SELECT EXISTS (SELECT FROM jobyard.ready)")

    workers = [await scene.worker() for _ in range(4)]

    async def drain_as(worker: int) -> list[dispatch.Claimed]:
        taken = list[dispatch.Claimed]()
        while await left():
            async with scene.pool.acquire() as connection:
                taken += await dispatch.claim(connection, worker, lanes, [0], 10, LEASE)
        return taken

    shares = await asyncio.gather(*map(drain_as, workers))
    taken = [attempt for share in shares for attempt in share]
    assert sorted(attempt.job for attempt in taken) == sorted(jobs)
    assert len({attempt.lease for attempt in taken}) == 1000
    assert all(shares), "each of them got a share"


@pytest.mark.parametrize("gone", ["expired", "deleted"])
async def test_a_dead_worker_claims_nothing_and_the_job_is_still_ready(scene: Scene, gone: str):
    (job,) = await scene.add()
    worker = await scene.worker()
    await (scene.expire(worker) if gone == "expired" else dispatch.stop_worker(scene.db, worker))
    with pytest.raises(WorkerExpired, match=f"worker {worker} "):
        await scene.claim(worker)
    assert await scene.tables_of(job) == ["ready"]
    assert await scene.events(["started"]) == []


async def test_a_ready_row_without_its_job_fails_loudly_and_not_as_an_expired_worker(scene: Scene):
    await scene.add()
    await scene.db.execute("DELETE FROM jobyard.job")
    with pytest.raises(asyncpg.NotNullViolationError, match="tenant"):
        await scene.claim(await scene.worker())
    assert await scene.count("ready") == 1


async def test_an_empty_poll_writes_nothing(scene: Scene):
    await scene.add()
    worker = await scene.worker()
    await scene.claim(worker)
    async with scene.db.transaction():
        assert await scene.claim(worker) == []
        # A row lock or a write, however small, would have made the transaction take an id.
        assert await scene.db.fetchval("SELECT pg_current_xact_id_if_assigned()") is None
    sql = await scene.db.prepare(f"EXPLAIN (ANALYZE, WAL) {_claim_of_nothing(worker)}")
    plan = "\n".join(row[0] for row in await sql.fetch())
    assert "WAL" not in plan


def _claim_of_nothing(worker: int) -> str:
    text = dispatch.statement("claim")
    for number, value in {
        6: "ARRAY[]::bigint[]",
        5: "30",
        4: str(worker),
        3: "10",
        2: "ARRAY[0]",
        1: "ARRAY[1]",
    }.items():
        text = text.replace(f"${number}", value)
    return text


async def test_a_started_event_names_every_attempt_of_the_claim(scene: Scene):
    jobs = await scene.add(3)
    await scene.claim(await scene.worker())
    event = await scene.db.fetchrow("SELECT * FROM jobyard.event WHERE kind = 'started'")
    assert event is not None
    assert sorted(event["jobs"]) == jobs
    assert event["attempts"] == [1, 1, 1]


# Settle


async def test_a_settled_job_is_done_with_its_result_verbatim(scene: Scene):
    (job,) = await scene.add()
    worker = await scene.worker()
    attempt = await scene.claim_one(worker)
    claimed_at = await scene.db.fetchval("SELECT claimed_at FROM jobyard.active")
    assert await dispatch.settle(scene.db, [ending(attempt, Succeeded('{"sent":   true}'))]) == {job}
    done = await scene.db.fetchrow("SELECT * FROM jobyard.done")
    assert done is not None
    assert await scene.tables_of(job) == ["done"]
    assert (done["status"], done["reason"], done["result"]) == ("completed", None, '{"sent":   true}')
    assert (done["run"], done["attempt"], done["lease"], done["worker"]) == (1, 1, attempt.lease, worker)
    assert (done["started_at"], done["tenant"], done["error"]) == (claimed_at, 1, None)


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [(Fail("no such address"), "non_retryable"), (Failed(BOOM), "exhausted")],
    ids=["for good", "exhausted"],
)
async def test_a_failed_job_keeps_its_reason_and_its_error(scene: Scene, outcome: Outcome, reason: str):
    (job,) = await scene.add(max_attempts=1)
    await dispatch.settle(scene.db, [ending(await scene.claim_one(), outcome)])
    place = await scene.place(job)
    assert place is not None
    assert (place["status"], place["reason"], place["result"]) == ("failed", reason, None)
    assert json.loads(place["error"])["message"] in ("no such address", "it went wrong")


async def test_a_late_result_is_dropped_after_the_lease_moved_on(scene: Scene):
    (job,) = await scene.add()
    late = await scene.claim_one()
    await dispatch.hand_back(scene.db, scene.lanes, [ending(late)])
    owner = await scene.claim_one()
    assert owner.lease != late.lease
    before = await scene.events()
    assert await dispatch.settle(scene.db, [ending(late, Succeeded('"late"'))]) == set()
    assert await scene.events() == before
    assert await dispatch.settle(scene.db, [ending(owner, Succeeded('"owner"'))]) == {job}
    assert await dispatch.settle(scene.db, [ending(late, Fail("late"))]) == set()
    assert await scene.db.fetchval("SELECT result FROM jobyard.done") == '"owner"'


async def test_a_batch_settles_what_is_held_and_leaves_out_what_is_lost(scene: Scene):
    jobs = await scene.add(3)
    attempts = await scene.claim(await scene.worker())
    await dispatch.hand_back(scene.db, scene.lanes, [ending(attempts[1])])
    settled = await dispatch.settle(scene.db, [ending(attempt, Succeeded()) for attempt in attempts])
    assert settled == {jobs[0], jobs[2]}
    assert await scene.tables_of(jobs[1]) == ["ready"]


async def test_a_batch_with_a_result_that_is_not_json_settles_nothing(scene: Scene):
    jobs = await scene.add(2)
    good, bad = await scene.claim(await scene.worker())
    with pytest.raises(asyncpg.InvalidTextRepresentationError):
        await dispatch.settle(scene.db, [ending(good, Succeeded("{}")), ending(bad, Succeeded("{"))])
    assert [await scene.tables_of(job) for job in jobs] == [["active"], ["active"]]


async def test_a_flush_of_endings_writes_one_event_row_a_kind(scene: Scene):
    await scene.add(4, max_attempts=1)
    outcomes = [Succeeded(), Fail("a"), Failed(BOOM), Succeeded()]
    attempts = await scene.claim(await scene.worker())
    await dispatch.settle(scene.db, [ending(a, o) for a, o in zip(attempts, outcomes, strict=True)])
    assert sorted(await scene.events(["completed", "failed"])) == [("completed", 2), ("failed", 2)]
    failed = await scene.db.fetchrow("SELECT * FROM jobyard.event WHERE kind = 'failed'")
    assert failed is not None
    assert dict(zip(failed["jobs"], failed["details"], strict=True)) == {
        attempts[1].job: "non_retryable",
        attempts[2].job: "exhausted",
    }


# Hand back


async def test_a_retry_waits_its_delay_by_the_clock_of_the_database(scene: Scene):
    (job,) = await scene.add()
    attempt = await scene.claim_one()
    async with scene.db.transaction():
        moved = (await dispatch.hand_back(scene.db, scene.lanes, [ending(attempt, Retry(after=90.0))])).jobs
        waits = await scene.db.fetchval(
            "SELECT extract(epoch FROM run_at - now())::float8 FROM jobyard.scheduled"
        )
    assert (moved, waits) == ({job}, 90.0)
    assert await scene.standing_of(job) == ("pending", None, 1)
    assert await scene.events(["retry_scheduled", "released"]) == [("retry_scheduled", 1)]


async def test_a_retry_leaves_its_attempt_on_record(scene: Scene):
    (job,) = await scene.add()
    worker = await scene.worker()
    attempt = await scene.claim_one(worker)
    await dispatch.hand_back(scene.db, scene.lanes, [ending(attempt, Failed(BOOM))])
    kept = await scene.db.fetchrow("SELECT * FROM jobyard.attempt")
    assert kept is not None
    assert (kept["job"], kept["lease"], kept["run"], kept["attempt"]) == (job, attempt.lease, 1, 1)
    assert (kept["worker"], kept["outcome"], json.loads(kept["error"])) == (worker, "retry", BOOM)
    assert kept["retry_at"] == await scene.db.fetchval("SELECT run_at FROM jobyard.scheduled")


async def test_a_retry_without_delay_is_ready_at_once(scene: Scene):
    (job,) = await scene.add()
    await dispatch.hand_back(scene.db, scene.lanes, [ending(await scene.claim_one(), Retry(after=0.0))])
    assert await scene.tables_of(job) == ["ready"]
    assert (await scene.claim_one()).attempt == 2


async def test_a_release_is_ready_at_once_unburnt_and_under_a_new_lease(scene: Scene):
    (job,) = await scene.add()
    first = await scene.claim_one()
    assert (await dispatch.hand_back(scene.db, scene.lanes, [ending(first)])).jobs == {job}
    assert await scene.events(["retry_scheduled", "released"]) == [("released", 1)]
    second = await scene.claim_one()
    assert (second.attempt, second.lane) == (first.attempt, first.lane)
    assert second.lease > first.lease


async def test_a_release_of_a_suspect_stays_in_the_lane_of_suspects(scene: Scene):
    (job,) = await scene.add()
    await dispatch.hand_back(scene.db, scene.lanes, [ending(await scene.claim_one(), suspect=1)])
    assert await scene.level(job) == 1
    await dispatch.hand_back(scene.db, scene.lanes, [ending(await scene.claim_one(), Retry(0.0), suspect=1)])
    assert await scene.level(job) == 0


async def test_a_hand_back_without_the_lease_writes_nothing(scene: Scene):
    await scene.add()
    late = await scene.claim_one()
    await dispatch.hand_back(scene.db, scene.lanes, [ending(late)])
    owner = await scene.claim_one()
    before = await scene.events()
    assert (await dispatch.hand_back(scene.db, scene.lanes, [ending(late, Failed(BOOM))])).jobs == set()
    assert (await dispatch.hand_back(scene.db, scene.lanes, [ending(late)])).jobs == set()
    assert await scene.events() == before
    assert await scene.count("attempt") == 1
    assert await scene.db.fetchval("SELECT lease FROM jobyard.active") == owner.lease


async def test_retries_and_releases_go_back_in_one_batch_with_one_event_a_kind(scene: Scene):
    jobs = await scene.add(4)
    attempts = await scene.claim(await scene.worker())
    endings = [ending(attempts[0]), ending(attempts[1], Failed(BOOM)), ending(attempts[2])]
    assert (await dispatch.hand_back(scene.db, scene.lanes, endings)).jobs == set(jobs[:3])
    assert sorted(await scene.events(["released", "retry_scheduled"])) == [
        ("released", 2),
        ("retry_scheduled", 1),
    ]
    assert [await scene.tables_of(job) for job in jobs] == [["ready"], ["scheduled"], ["ready"], ["active"]]


async def test_a_hand_back_that_is_undone_forgets_the_lanes_it_made(scene: Scene):
    """A lane remembered from a transaction that rolled back would swallow every job that is put in it later."""
    await scene.add()
    attempt = await scene.claim_one()

    undone = scene.db.transaction()
    await undone.start()
    await dispatch.hand_back(scene.db, scene.lanes, [ending(attempt, suspect=1)])
    await undone.rollback()
    assert (await dispatch.hand_back(scene.db, scene.lanes, [ending(attempt, suspect=1)])).jobs == {
        attempt.job
    }
    assert [again.job for again in await scene.claim(await scene.worker())] == [attempt.job]


@pytest.mark.parametrize("how", ["settle", "hand_back"])
async def test_a_batch_takes_its_rows_in_order_of_job_so_that_two_cannot_deadlock(scene: Scene, how: str):
    """F25. Whoever waits for the first job has locked no other."""
    jobs = await scene.add(5)
    attempts = await scene.claim(await scene.worker())
    endings = [ending(attempt, Succeeded() if how == "settle" else None) for attempt in reversed(attempts)]
    async with scene.pool.acquire() as first, scene.pool.acquire() as second:
        async with first.transaction():
            await first.execute("SELECT FROM jobyard.active WHERE job = $1 FOR UPDATE", jobs[0])
            waiting = asyncio.create_task(
                dispatch.settle(second, endings)
                if how == "settle"
                else dispatch.hand_back(second, scene.lanes, endings)
            )
            await until(scene.blocked)
            free = await scene.db.fetch("SELECT job FROM jobyard.active ORDER BY job FOR UPDATE SKIP LOCKED")
        assert [row["job"] for row in free] == jobs[1:]
        written = await waiting
        assert (written if isinstance(written, set) else written.jobs) == set(jobs)


async def test_of_a_job_that_comes_back_without_end_the_newest_attempts_are_kept(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
):
    """F32."""
    monkeypatch.setattr(dispatch, "ATTEMPTS_KEPT", 5)
    (job,) = await scene.add()
    leases: list[int] = []
    for _ in range(12):
        attempt = await scene.claim_one()
        leases.append(attempt.lease)
        await dispatch.hand_back(scene.db, scene.lanes, [ending(attempt)])
    kept = await scene.db.fetch("SELECT lease FROM jobyard.attempt WHERE job = $1 ORDER BY lease", job)
    assert [row["lease"] for row in kept] == leases[-5:]
    assert await scene.standing_of(job) == ("pending", None, 0)
