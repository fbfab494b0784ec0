"""The audit of the kill harness finds each violation when it is planted, and nothing else: a harness that cannot fail
proves nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import pytest

from chaos.audit import Audit, audit, note
from chaos.fleet import TABLES
from chaos.report import Report
from jobyard.domain.lifecycle import Fail, Failed, Outcome, Succeeded, abandon
from jobyard.store import dispatch
from jobyard.store.dispatch import Claimed, Ending
from store.scene import DONE, Scene, ending

_numbers = count()


class Told:
    """Jobs that clients were told are accepted, and handlers have written down."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.accepted: list[UUID] = []
        self.seen: dict[UUID, str] = {}

    async def add(self, type: str = "coroutine", **options: Any) -> UUID:
        payload = json.dumps({"number": next(_numbers)} | options.pop("payload", {}))
        (job,) = await self.scene.add(type=type, payload=payload, **options)
        self.accepted.append(job)
        return job

    async def start(self) -> Claimed:
        attempt = await self.scene.claim_one(await self.scene.worker("coroutine", "payment"))
        await self.write_start(attempt)
        return attempt

    async def write_start(self, attempt: Claimed) -> None:
        await self.scene.db.execute(
            "INSERT INTO chaos.start (once, job, run, attempt, lease, pid, parent) VALUES ($1, $2, 1, $3, $4, 1, 1)",
            uuid4(),
            attempt.job,
            attempt.attempt,
            attempt.lease,
        )

    async def pay(self, job: UUID) -> None:
        await self.scene.db.execute("INSERT INTO chaos.payment (job, run) VALUES ($1, 1)", job)

    async def end(self, attempt: Claimed, outcome: Outcome = DONE) -> None:
        end = ending(attempt, outcome)
        ends_for_good = end.change.reason or isinstance(outcome, Succeeded)
        if ends_for_good:
            assert await dispatch.settle(self.scene.db, [end])
        else:
            await dispatch.hand_back(self.scene.db, self.scene.lanes, [end])

    async def finish(self, type: str = "coroutine", outcome: Outcome = DONE, **options: Any) -> UUID:
        job = await self.add(type, **options)
        if type == "payment":
            await self.pay(job)
        await self.end(await self.start(), outcome)
        return job

    async def audited(self) -> Audit:
        await note(self.scene.db, self.accepted, self.seen)
        return await audit(self.scene.db)


@pytest.fixture
async def told(scene: Scene) -> AsyncIterator[Told]:
    await scene.db.execute(TABLES)
    yield Told(scene)
    await scene.db.execute("DROP SCHEMA chaos CASCADE")


async def orphaned(told: Told) -> UUID:
    """A job that lost its first worker and was completed by a second one."""
    job = await told.add()
    attempt = await told.start()
    change = abandon(attempt.standing(0), 0.5)
    lane = ending(attempt).lane.at_level(change.suspect)
    await dispatch.hand_back(
        told.scene.db, told.scene.lanes, [Ending(attempt.job, attempt.lease, lane, change)]
    )
    await told.end(await told.start())
    return job


async def test_jobs_that_ended_as_their_handlers_said_break_no_promise(told: Told):
    told.seen[await told.finish()] = "completed"
    await told.finish("payment")
    await told.finish(outcome=Fail("never"), payload={"refused": True})
    await told.finish(outcome=Failed({"type": "E", "message": "m"}), payload={"fails": 1}, max_attempts=1)
    await orphaned(told)
    found = await told.audited()
    assert found.violations == {}
    assert [(cause, times) for cause, _, times in found.second_starts] == [("orphan", 1)]
    assert (found.figures["accepted"], found.figures["completed"], found.figures["failed"]) == (5, 3, 2)


Plant = Callable[[Told], Awaitable[UUID]]


async def lost(told: Told) -> UUID:
    job = await told.add()
    await told.scene.db.execute("DELETE FROM jobyard.ready WHERE job = $1", job)
    return job


async def never_made(told: Told) -> UUID:
    job = uuid4()
    told.accepted.append(job)
    return job


async def stuck(told: Told) -> UUID:
    return await told.add(delay_seconds=60.0)


async def two_outcomes(told: Told) -> UUID:
    job = await told.finish()
    await told.scene.db.execute(
        "INSERT INTO jobyard.event (tenant, kind, jobs, attempts, details, leases)"
        " VALUES (1, 'failed', ARRAY[$1::uuid], '{1}', '{exhausted}', '{1}')",
        job,
    )
    return job


async def changed(told: Told) -> UUID:
    job = await told.finish()
    told.seen[job] = "failed"
    return job


async def paid_twice(told: Told) -> UUID:
    job = await told.finish("payment")
    await told.pay(job)
    return job


async def paid_and_failed(told: Told) -> UUID:
    return await told.finish("payment", Fail("never"), payload={"refused": True})


async def never_paid(told: Told) -> UUID:
    job = await told.finish("payment")
    await told.scene.db.execute("DELETE FROM chaos.payment WHERE job = $1", job)
    return job


async def never_started(told: Told) -> UUID:
    job = await told.finish()
    await told.scene.db.execute("DELETE FROM chaos.start WHERE job = $1", job)
    return job


async def one_lease_started_twice(told: Told) -> UUID:
    job = await told.add()
    attempt = await told.start()
    await told.write_start(attempt)
    await told.end(attempt)
    return job


async def a_start_without_a_record(told: Told) -> UUID:
    job = await orphaned(told)
    await told.scene.db.execute("DELETE FROM jobyard.attempt WHERE job = $1", job)
    return job


async def one_key_and_two_jobs(told: Told) -> UUID:
    number = {"number": next(_numbers)}
    return min(await told.finish(payload=number), await told.finish(payload=number))


async def failed_for_no_reason(told: Told) -> UUID:
    return await told.finish(outcome=Failed({"type": "E", "message": "m"}), max_attempts=1)


@pytest.mark.parametrize(
    ("plant", "names"),
    [
        (lost, ["lost", "not final"]),
        (never_made, ["lost", "not final"]),
        (stuck, ["not final"]),
        (two_outcomes, ["two outcomes"]),
        (changed, ["changed"]),
        (paid_twice, ["done twice"]),
        (paid_and_failed, ["done, and not completed"]),
        (never_paid, ["completed, and not done"]),
        (never_started, ["completed, and never started"]),
        (one_lease_started_twice, ["started twice"]),
        (a_start_without_a_record, ["started under a lease"]),
        (one_key_and_two_jobs, ["two jobs"]),
        (failed_for_no_reason, ["another outcome"]),
    ],
    ids=lambda given: given.__name__ if callable(given) else "",
)
async def test_a_planted_violation_is_found_and_no_other(told: Told, plant: Plant, names: list[str]):
    job = await plant(told)
    await told.finish()
    found = (await told.audited()).violations
    assert all(what.startswith(name) for what, name in zip(found, names, strict=True)), found
    assert all(jobs == [str(job)] for _, jobs in found.values())


async def test_a_violation_stands_in_the_report(told: Told):
    job = await lost(told)
    report = Report(7, 1.0, await told.audited(), [], 0, 0, "all is well", True, {"api": {0: 1}}, 0.0, 0.0)
    assert any(violation.startswith("lost") and str(job) in violation for violation in report.violations)
    assert "lost                                 1" in report.as_text()
    assert json.loads(report.as_json())["lost"] == 1


async def test_what_verify_finds_is_a_violation(told: Told):
    report = Report(7, 1.0, await told.audited(), [], 0, 0, "two owners of a lease", False, {}, 0.0, 0.0)
    assert report.violations == ["jobyard verify: two owners of a lease"]
