"""Cancel, retry, redrive and purge: who won is what the answer says, and a run starts once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import TypeVar
from uuid import UUID

import pytest

from jobyard.domain.errors import NotFound, WrongState
from jobyard.domain.job import DEFAULT_TENANT
from jobyard.domain.lifecycle import Cancelled as WasCancelled
from jobyard.domain.lifecycle import Fail, Failed, Outcome, Retry, Succeeded
from jobyard.ids import new_job_id
from jobyard.store import dead_letters, dispatch, reads, upkeep, verbs
from jobyard.store.verbs import Cancelled
from store.scene import DONE, Scene, ending, until

A = TypeVar("A")
BOUNCE = Fail("no such mailbox", "Bounce")


async def cancel(scene: Scene, job: UUID) -> Cancelled:
    return await verbs.cancel(scene.db, job, DEFAULT_TENANT)


async def retry(scene: Scene, job: UUID) -> int:
    return await verbs.retry(scene.db, job, DEFAULT_TENANT)


async def refused(work: Awaitable[object]) -> str:
    with pytest.raises(WrongState) as refusal:
        await work
    return str(refusal.value)


# Cancel


@pytest.mark.parametrize("options", [{}, {"delay_seconds": 3600.0}], ids=["ready", "scheduled"])
async def test_a_job_that_waits_is_cancelled_at_once_and_no_claim_finds_it(
    scene: Scene, options: dict[str, float]
):
    (job,) = await scene.add(**options)
    assert await cancel(scene, job) is Cancelled.AT_ONCE
    assert await scene.tables_of(job) == ["done"]
    assert await scene.standing_of(job) == ("failed", "cancelled", 0)
    assert await scene.claim(await scene.worker()) == []
    assert await scene.events() == [("created", 1), ("failed", 1)]


async def test_a_job_that_runs_is_asked_to_end_once(scene: Scene):
    (job,) = await scene.add()
    attempt = await scene.claim_one()
    assert await cancel(scene, job) is Cancelled.ASKED
    assert await cancel(scene, job) is Cancelled.ASKED
    assert await scene.events(["cancel_requested"]) == [("cancel_requested", 1)]
    assert await dispatch.cancel_requests(scene.db, [(job, 1)]) == [(job, 1)]
    await dispatch.settle(scene.db, [ending(attempt, WasCancelled())])
    assert await scene.standing_of(job) == ("failed", "cancelled", 1)


@pytest.mark.parametrize(
    "outcome",
    [Retry(), Failed({"type": "Boom", "message": ""}), None],
    ids=["Retry", "an error", "a release"],
)
async def test_what_was_asked_to_end_is_never_tried_again(scene: Scene, outcome: Outcome | None):
    (job,) = await scene.add()
    attempt = await scene.claim_one()
    await cancel(scene, job)
    moved = await dispatch.hand_back(scene.db, scene.lanes, [ending(attempt, outcome)])
    assert (moved.jobs, moved.cancelled) == ({job}, {job})
    assert await scene.tables_of(job) == ["done"]
    assert (await scene.standing_of(job))[:2] == ("failed", "cancelled")


async def test_the_sweep_does_not_bring_back_what_was_asked_to_end(scene: Scene):
    (job,) = await scene.add()
    worker = await scene.worker()
    await scene.claim_one(worker)
    await cancel(scene, job)
    await scene.expire(worker)
    await upkeep.sweep(scene.db, scene.lanes)
    assert (await scene.standing_of(job))[:2] == ("failed", "cancelled")


async def test_a_job_that_completes_all_the_same_is_completed(scene: Scene):
    (job,) = await scene.add()
    attempt = await scene.claim_one()
    await cancel(scene, job)
    await dispatch.settle(scene.db, [ending(attempt, Succeeded("1"))])
    assert await scene.standing_of(job) == ("completed", None, 1)


async def test_a_job_that_is_over_cannot_be_cancelled_and_stays_as_it_is(scene: Scene):
    for outcome in (Succeeded(), BOUNCE):
        (job,) = await scene.add_finished(outcome=outcome)
        before = await scene.standing_of(job)
        assert before[0] in await refused(cancel(scene, job))
        assert await scene.standing_of(job) == before


async def test_a_cancel_and_a_claim_at_once_have_one_winner_that_the_answer_names(scene: Scene):
    worker = await scene.worker()
    for _ in range(100):
        (job,) = await scene.add()
        lanes = await scene.lane_ids()

        async def claim(lanes: list[int] = lanes) -> int:
            async with scene.pool.acquire() as connection:
                return len(await dispatch.claim(connection, worker, lanes, [0] * len(lanes), 10, 30.0))

        answer, claimed = await asyncio.gather(cancel(scene, job), claim())
        assert (answer, claimed) in ((Cancelled.AT_ONCE, 0), (Cancelled.ASKED, 1))
        assert await scene.tables_of(job) == (["done"] if claimed == 0 else ["active"])


async def test_a_cancel_and_a_release_at_once_end_it_cancelled_in_either_order(scene: Scene):
    worker = await scene.worker()
    for _ in range(100):
        (job,) = await scene.add()
        end = ending(await scene.claim_one(worker))

        async def finish(end: dispatch.Ending = end) -> None:
            async with scene.pool.acquire() as connection:
                await dispatch.hand_back(connection, scene.lanes, [end])

        answer, _ = await asyncio.gather(cancel(scene, job), finish())
        # Asked while it ran, or at once where it had gone back in line: it is over in either case.
        assert answer in (Cancelled.ASKED, Cancelled.AT_ONCE)
        assert await scene.tables_of(job) == ["done"]
        assert (await scene.standing_of(job))[:2] == ("failed", "cancelled")


async def test_a_cancel_and_a_completion_at_once_have_one_winner_that_the_answer_names(scene: Scene):
    worker = await scene.worker()
    for _ in range(100):
        (job,) = await scene.add()
        end = ending(await scene.claim_one(worker), DONE)

        async def finish(end: dispatch.Ending = end) -> None:
            async with scene.pool.acquire() as connection:
                await dispatch.settle(connection, [end])

        answer, _ = await asyncio.gather(cancel(scene, job), finish(), return_exceptions=True)
        assert answer is Cancelled.ASKED or isinstance(answer, WrongState)
        assert await scene.standing_of(job) == ("completed", None, 1)


# Retry


@pytest.mark.parametrize("place", ["ready", "scheduled", "active", "completed"])
async def test_only_a_failed_job_is_run_again(scene: Scene, place: str):
    if place == "completed":
        (job,) = await scene.add_finished()
    else:
        (job,) = await scene.add(**({"delay_seconds": 60.0} if place == "scheduled" else {}))
    if place == "active":
        await scene.claim_one()
    before = await scene.tables_of(job)
    await refused(retry(scene, job))
    assert await scene.tables_of(job) == before
    assert await scene.count("redrive") == 0


async def test_a_verb_on_no_job_says_so(scene: Scene):
    for verb in (verbs.cancel, verbs.retry):
        with pytest.raises(NotFound):
            await verb(scene.db, new_job_id(), DEFAULT_TENANT)


@pytest.mark.parametrize("outcome", [BOUNCE, WasCancelled()], ids=["a dead letter", "cancelled"])
async def test_a_failed_job_runs_again_with_all_its_tries_and_keeps_what_was(scene: Scene, outcome: Outcome):
    (job,) = await scene.add_finished(outcome=outcome, max_attempts=2)
    assert await retry(scene, job) == 2
    assert (await scene.standing_of(job))[::2] == ("pending", 0)
    attempt = await scene.claim_one()
    assert (attempt.run, attempt.attempt) == (2, 1)
    await dispatch.settle(scene.db, [ending(attempt, DONE)])
    rows = await reads.attempts(scene.db, job, reads.NEWEST_LEASE, 10)
    assert [(row["run"], row["attempt"]) for row in rows] == [(2, 1), (1, 1)]
    assert await scene.standing_of(job) == ("completed", None, 1)


async def test_five_failures_and_a_redrive_keep_every_error_and_the_payload(scene: Scene):
    payload = '{"order":  17}'
    (job,) = await scene.add(max_attempts=5, payload=payload)
    for number in range(1, 6):
        end = ending(await scene.claim_one(), Failed({"type": "Boom", "message": f"try {number}"}))
        if end.change.run_in is None:
            await dispatch.settle(scene.db, [end])
        else:
            await dispatch.hand_back(scene.db, scene.lanes, [end])
            await scene.db.execute("UPDATE jobyard.scheduled SET run_at = now()")
            await upkeep.promote(scene.db)
    assert (await scene.standing_of(job))[:2] == ("failed", "exhausted")
    await retry(scene, job)
    attempt = await scene.claim_one()
    assert (attempt.attempt, attempt.payload) == (1, payload)
    await dispatch.settle(scene.db, [ending(attempt, DONE)])
    rows = await reads.attempts(scene.db, job, reads.NEWEST_LEASE, 10)
    told = [json.loads(row["error"])["message"] if row["error"] else None for row in rows]
    assert told == [None, "try 5", "try 4", "try 3", "try 2", "try 1"]


async def test_twenty_retries_at_once_of_one_job_start_one_run(scene: Scene):
    (job,) = await scene.add_finished(outcome=BOUNCE)

    async def one() -> int | str:
        async with scene.pool.acquire() as connection:
            try:
                return await verbs.retry(connection, job, DEFAULT_TENANT)
            except WrongState as refusal:
                return str(refusal)

    answers = await asyncio.gather(*(one() for _ in range(20)))
    assert sum(answer == 2 for answer in answers) == 1
    assert await scene.count("ready") == await scene.count("redrive") == 1


async def test_a_redrive_answers_only_the_run_it_was_asked_for(scene: Scene):
    (job,) = await scene.add_finished(outcome=BOUNCE)

    async def redrive() -> set[UUID]:
        async with scene.pool.acquire() as connection:
            return await verbs.redrive(connection, [(job, 1)])

    assert sorted(map(len, await asyncio.gather(redrive(), redrive()))) == [0, 1]
    await dispatch.settle(scene.db, [ending(await scene.claim_one(), BOUNCE)])
    assert await redrive() == set(), "its second run has failed; that is another redrive's to answer"
    assert await verbs.redrive(scene.db, [(job, 2)]) == {job}


async def test_a_run_that_completed_is_no_redrives_to_answer(scene: Scene):
    (job,) = await scene.add_finished()
    assert await verbs.redrive(scene.db, [(job, 1)]) == set()
    assert await scene.tables_of(job) == ["done"]


async def test_a_redrive_at_a_rate_spreads_the_jobs_over_time(scene: Scene):
    jobs = await scene.add_finished(4, outcome=BOUNCE)
    await verbs.redrive(scene.db, [(job, 1) for job in jobs], every=2.0)
    assert await scene.count("ready") == 1
    waits = await scene.db.fetch(
        "SELECT round(extract(epoch FROM run_at - min(run_at) OVER ()))::int AS after FROM jobyard.scheduled ORDER BY job"
    )
    assert [row["after"] for row in waits] == [0, 2, 4]


# Purge


async def test_a_purge_deletes_dead_letters_with_all_that_is_kept_of_them(scene: Scene):
    (job,) = await scene.add_finished(outcome=BOUNCE)
    (other,) = await scene.add_finished(outcome=BOUNCE)
    assert await dead_letters.purge(scene.db, [(job, 1)]) == {job}
    assert await scene.place(job) is None
    assert [row["id"] for row in await scene.db.fetch("SELECT id FROM jobyard.job")] == [other]
    assert await dead_letters.purge(scene.db, [(job, 1)]) == set()


async def test_a_purge_leaves_a_job_that_was_sent_to_live_again(scene: Scene):
    (job,) = await scene.add_finished(outcome=BOUNCE)
    await retry(scene, job)
    for place in ("ready", "active", "done"):
        if place == "active":
            attempt = await scene.claim_one()
        if place == "done":
            await dispatch.settle(scene.db, [ending(attempt, DONE)])
        assert await dead_letters.purge(scene.db, [(job, 1)]) == set()
        assert place in await scene.tables_of(job)


async def test_a_purge_and_a_redrive_at_once_have_one_winner(scene: Scene):
    for _ in range(50):
        (job,) = await scene.add_finished(outcome=BOUNCE)

        async def redrive(job: UUID = job) -> set[UUID]:
            async with scene.pool.acquire() as connection:
                return await verbs.redrive(connection, [(job, 1)])

        purged, redriven = await asyncio.gather(dead_letters.purge(scene.db, [(job, 1)]), redrive())
        assert len(purged) + len(redriven) == 1
        assert (await scene.place(job) is None) is bool(purged)
        if redriven:
            await scene.claim(await scene.worker())


async def test_a_purge_that_waited_for_a_redrive_sees_what_it_did(scene: Scene):
    (job,) = await scene.add_finished(outcome=BOUNCE)

    async def purge() -> set[UUID]:
        async with scene.pool.acquire() as connection:
            return await dead_letters.purge(connection, [(job, 1)])

    async with scene.pool.acquire() as other, other.transaction():
        await verbs.redrive(other, [(job, 1)])
        purging = asyncio.create_task(purge())
        await until(scene.blocked)
    assert await purging == set()
    assert "ready" in await scene.tables_of(job)
    assert await scene.count("job") == 1
