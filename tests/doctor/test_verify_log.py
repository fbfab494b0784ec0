"""`jobyard verify` finds in the log what the rows alone do not show, and is misled by nothing that happens rightly."""

from __future__ import annotations

from uuid import UUID

import pytest

from jobyard.domain.lifecycle import Crashed, Fail, Failed, Outcome, Retry, Succeeded
from jobyard.store import audit_log, dead_letters, dispatch, upkeep, verbs
from jobyard.store.audit import Found, Violation
from jobyard.store.audit_log import LeaseSet
from jobyard.store.dispatch import Claimed
from store.scene import Scene, ending

Told = list[tuple[Violation, UUID, int | None, int | None]]


async def found(scene: Scene, rows: int = audit_log.PAGE_EVENTS) -> list[Found]:
    return [found async for page in audit_log.events(scene.db, rows) for found in page.found]


async def told(scene: Scene) -> Told:
    return [(it.violation, it.job, it.run, it.lease) for it in await found(scene)]


async def settle(scene: Scene, attempt: Claimed, outcome: Outcome | None = None) -> None:
    if outcome is None or isinstance(outcome, Retry | Crashed | Failed):
        await dispatch.hand_back(scene.db, scene.lanes, [ending(attempt, outcome)])
    else:
        await dispatch.settle(scene.db, [ending(attempt, outcome)])


async def start_again(scene: Scene, attempt: Claimed, worker: int | None = None) -> None:
    """The log tells the start of this attempt once more, by this worker or by the same."""
    await scene.db.execute(
        "INSERT INTO jobyard.event (tenant, kind, jobs, attempts, leases, worker)"
        " SELECT tenant, kind, jobs, attempts, leases, coalesce($1, worker) FROM jobyard.event WHERE kind = 'started'",
        worker,
    )


async def forget_start(scene: Scene) -> None:
    await scene.db.execute("DELETE FROM jobyard.event WHERE kind = 'started'")


# What happens rightly


async def test_every_way_to_leave_an_attempt_and_a_run_is_in_order(scene: Scene):
    await scene.add(9)
    attempts = await scene.claim(await scene.worker(), 7)
    outcomes = [
        Succeeded(),
        Fail("no"),
        Failed({"type": "E", "message": "m"}),
        Retry(),
        Crashed("it died"),
        None,
    ]
    for attempt, outcome in zip(attempts[:6], outcomes, strict=True):
        await settle(scene, attempt, outcome)
    asked = attempts[6]
    assert await verbs.cancel(scene.db, asked.job, 1) is verbs.Cancelled.ASKED
    await settle(scene, asked)
    for job in [it.job for it in await scene.claim(await scene.worker(), 1)]:
        await verbs.cancel(scene.db, job, 1)
    for waiting in await scene.db.fetch(
        "SELECT job FROM jobyard.place WHERE status = 'pending' ORDER BY job LIMIT 2"
    ):
        await verbs.cancel(scene.db, waiting["job"], 1)
    await verbs.retry(scene.db, attempts[1].job, 1)
    for attempt in await scene.claim(dead := await scene.worker(), 1):
        assert attempt.run >= 1
    await scene.expire(dead)
    await upkeep.sweep(scene.db, scene.lanes)
    await scene.claim(await scene.worker(), 5)
    assert await found(scene) == []
    assert {kind for kind, _ in await scene.events()} >= {
        "completed",
        "failed",
        "released",
        "retry_scheduled",
    }


# What is planted


async def test_a_lease_that_two_workers_were_given_is_found(scene: Scene):
    await scene.add()
    attempt = await scene.claim_one()
    await start_again(scene, attempt, worker=999)
    about = (attempt.job, 1, attempt.lease)
    assert await told(scene) == [(Violation.TWO_OWNERS, *about), (Violation.TWO_OWNERS, *about)]


async def test_a_lease_that_one_worker_was_given_twice_is_found_however_far_apart(scene: Scene):
    await scene.add()
    attempt = await scene.claim_one()
    await scene.add_finished(300)
    await start_again(scene, attempt)
    starts = [it for it in await found(scene, rows=1) if it.lease == attempt.lease]
    assert [it.violation for it in starts] == [Violation.TWO_OWNERS]


async def test_an_attempt_that_another_worker_runs_is_found(scene: Scene):
    await scene.add()
    attempt = await scene.claim_one()
    await scene.db.execute("UPDATE jobyard.active SET worker = 999")
    assert await told(scene) == [(Violation.TWO_OWNERS, attempt.job, 1, attempt.lease)]


@pytest.mark.parametrize(
    ("outcome", "table"), [(Succeeded(), "done"), (Fail("no"), "done"), (Retry(), "attempt")]
)
async def test_an_outcome_by_another_worker_is_found(scene: Scene, outcome: Outcome, table: str):
    await scene.add()
    attempt = await scene.claim_one()
    await settle(scene, attempt, outcome)
    await scene.db.execute(f"UPDATE jobyard.{table} SET worker = 999")
    assert await told(scene) == [(Violation.FOREIGN_OUTCOME, attempt.job, 1, attempt.lease)]


@pytest.mark.parametrize("outcome", [Succeeded(), Fail("no"), Retry(), None])
async def test_an_outcome_under_a_lease_that_nobody_was_given_is_found(scene: Scene, outcome: Outcome | None):
    await scene.add()
    attempt = await scene.claim_one()
    await settle(scene, attempt, outcome)
    await forget_start(scene)
    assert await told(scene) == [(Violation.FOREIGN_OUTCOME, attempt.job, 1, attempt.lease)]


async def test_a_second_end_of_one_lease_is_found(scene: Scene):
    """The sweep gave the job back, and then a late result was taken all the same."""
    await scene.add()
    attempt = await scene.claim_one()
    held = "SELECT job, lease, worker, claimed_at, deadline, tenant, lane, run, attempt, crashes FROM jobyard.active"
    row = await scene.db.fetchrow(held)
    assert row is not None
    await settle(scene, attempt)
    await scene.db.execute("DELETE FROM jobyard.ready; DELETE FROM jobyard.attempt")
    await scene.db.execute(
        "INSERT INTO jobyard.active (job, lease, worker, claimed_at, deadline, tenant, lane, run, attempt, crashes)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        *row.values(),
    )
    await settle(scene, attempt, Succeeded())
    about = (attempt.job, 1, attempt.lease)
    assert await told(scene) == [(Violation.FINAL_CHANGED, *about), (Violation.TWO_OUTCOMES, *about)]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE jobyard.done SET status = 'failed', reason = 'exhausted'",
        "UPDATE jobyard.done SET lease = lease + 1000000",
    ],
)
async def test_a_final_state_that_was_changed_is_found(scene: Scene, change: str):
    await scene.add()
    attempt = await scene.claim_one()
    await settle(scene, attempt, Succeeded())
    await scene.db.execute(change)
    assert Violation.FINAL_CHANGED in [it.violation for it in await found(scene)]


async def test_a_reason_that_was_changed_is_found(scene: Scene):
    await scene.add()
    attempt = await scene.claim_one()
    await settle(scene, attempt, Fail("no"))
    await scene.db.execute("UPDATE jobyard.done SET reason = 'cancelled'")
    (it,) = await found(scene)
    assert (it.violation, it.evidence) == (
        Violation.FINAL_CHANGED,
        "the log tells failed (non_retryable), the record failed (cancelled)",
    )


@pytest.mark.parametrize(("outcome", "other"), [(Retry(), "release"), (None, "retry")])
async def test_the_end_of_an_attempt_that_was_changed_is_found(
    scene: Scene, outcome: Outcome | None, other: str
):
    await scene.add()
    attempt = await scene.claim_one()
    await settle(scene, attempt, outcome)
    await scene.db.execute("UPDATE jobyard.attempt SET outcome = $1", other)
    assert await told(scene) == [(Violation.FINAL_CHANGED, attempt.job, 1, attempt.lease)]


@pytest.mark.parametrize("table", ["active", "attempt", "done"])
async def test_an_attempt_that_is_gone_without_an_end_is_found(scene: Scene, table: str):
    await scene.add(3)
    attempts = await scene.claim(await scene.worker(), 3)
    await settle(scene, attempts[0], Retry())
    await settle(scene, attempts[1], Succeeded())
    (job,) = [row["job"] for row in await scene.db.fetch(f"DELETE FROM jobyard.{table} RETURNING job")]
    lost = [it for it in await found(scene) if it.violation is Violation.ATTEMPT_LOST]
    assert [it.job for it in lost] == [job]


# What the log no longer says, or did not say yet


async def test_jobs_that_were_deleted_are_not_missed(scene: Scene):
    await scene.add_finished(3)
    await scene.db.execute("UPDATE jobyard.done SET finished_at = now() - interval '1 year'")
    (failed,) = await scene.add_finished(outcome=Fail("no"))
    await upkeep.delete_finished(scene.db, 60, 60)
    await dead_letters.purge(scene.db, [(failed, 1)])
    assert await scene.count("job") == 0
    assert await found(scene) == []


async def test_starts_that_the_log_has_dropped_are_not_missed(scene: Scene):
    await scene.add()
    attempt = await scene.claim_one()
    await upkeep.delete_old_events(scene.db, -1)
    await settle(scene, attempt, Succeeded())
    assert await found(scene) == []


async def test_attempts_from_before_the_log_told_leases_are_not_missed(scene: Scene):
    await scene.add()
    attempt = await scene.claim_one()
    await scene.db.execute("UPDATE jobyard.event SET leases = NULL, worker = NULL")
    await settle(scene, attempt, Succeeded())
    assert await found(scene) == []


async def test_attempts_that_were_too_many_to_keep_are_not_missed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
):
    for module in (dispatch, audit_log):
        monkeypatch.setattr(module, "ATTEMPTS_KEPT", 2)
    await scene.add(max_attempts=10)
    for _ in range(4):
        await settle(scene, await scene.claim_one(), Retry(0.0))
    assert await scene.count("attempt") == 2
    assert await found(scene) == []


async def test_a_start_that_was_committed_behind_the_reader_is_looked_for_once_more(scene: Scene):
    await scene.add(2)
    async with scene.pool.acquire() as connection:
        claim = connection.transaction()
        await claim.start()
        worker = await scene.worker()
        late = await dispatch.claim(connection, worker, await scene.lane_ids(), [0], 1, 60)
        await scene.claim(worker, 1)
        pages = audit_log.events(scene.db, 1)
        seen = [await anext(pages), await anext(pages)]
        await claim.commit()
    await settle(scene, late[0], Succeeded())
    assert [it.found for it in seen] == [[], []]
    assert [found async for page in pages for found in page.found] == []


# The set of leases


def test_a_set_of_leases_tells_new_ones_from_those_it_has_seen():
    leases = LeaseSet()
    numbers = [0, 1, 7, 8, 65_535, 65_536, 10**12]
    assert [leases.add(number) for number in numbers] == [True] * 7
    assert [leases.add(number) for number in numbers] == [False] * 7
    assert all(number in leases for number in numbers)
    assert not any(number in leases for number in (2, 9, 65_537, 10**12 + 1, 10**9))
