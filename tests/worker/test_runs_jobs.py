"""A worker on a real PostgreSQL: what becomes of the jobs it runs."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any
from uuid import UUID

import msgspec
import pytest

from jobyard import Context, Fail, Retry
from jobyard.domain.retry import Backoff
from worker.yard import Yard, until

AT_ONCE = Backoff(base_seconds=0.001, cap_seconds=0.001)


async def promoted(yard: Yard) -> None:
    """What the maintainer does: bring the retries back in line."""
    from jobyard.store import upkeep

    await upkeep.promote(yard.db)


async def end_with_retries(yard: Yard, job: UUID) -> Any:
    async def look() -> Any:
        await promoted(yard)
        return await yard.db.fetchrow("SELECT * FROM jobyard.done WHERE job = $1", job)

    return await until(look, "the job ended")


async def test_async_and_sync_jobs_are_completed_with_their_results(yard: Yard) -> None:
    async def double(payload: dict[str, int], ctx: Context) -> dict[str, int]:
        return {"twice": payload["n"] * 2, "attempt": ctx.attempt}

    def where(payload: dict[str, int]) -> str:
        return threading.current_thread().name

    async with yard.working({"double": double, "where": where}) as working:
        (one,) = await yard.add("double", payload={"n": 21})
        (two,) = await yard.add("where", payload={"n": 1})
        done = await yard.end_of(one)
        assert (done["status"], done["attempt"], json.loads(done["result"])) == (
            "completed",
            1,
            {"twice": 42, "attempt": 1},
        )
        assert done["worker"] == working.worker.id
        assert json.loads((await yard.end_of(two))["result"]).startswith("handler")
    assert await yard.count("active") == await yard.count("ready") == 0


async def test_a_job_that_keeps_failing_is_retried_with_backoff_until_exhausted(yard: Yard) -> None:
    async def fail(ctx: Context) -> None:
        raise LookupError(f"try {ctx.attempt}")

    (job,) = await yard.add(max_attempts=3, backoff=Backoff(0.02, 0.02))
    async with yard.working({"t": fail}):
        done = await end_with_retries(yard, job)
    assert (done["status"], done["reason"], done["attempt"]) == ("failed", "exhausted", 3)
    assert json.loads(done["error"])["message"] == "try 3"
    rows = await yard.db.fetch(
        "SELECT attempt, outcome, error, retry_at - ended_at AS pause FROM jobyard.attempt ORDER BY lease"
    )
    assert [(row["attempt"], row["outcome"]) for row in rows] == [(1, "retry"), (2, "retry")]
    assert [json.loads(row["error"])["message"] for row in rows] == ["try 1", "try 2"]
    assert all(0 <= row["pause"].total_seconds() <= 0.02 for row in rows)


async def test_a_handler_may_end_its_job_for_good_or_ask_for_a_time(yard: Yard) -> None:
    async def decide(payload: str) -> Any:
        return Fail("no such user", "NoSuchUser") if payload == "fail" else Retry(after=3600, message="later")

    async with yard.working({"t": decide}):
        (fail,) = await yard.add(payload="fail")
        (retry,) = await yard.add(payload="retry")
        done = await yard.end_of(fail)
        assert (done["reason"], json.loads(done["error"])) == (
            "non_retryable",
            {"type": "NoSuchUser", "message": "no such user"},
        )
        await until(lambda: yard.count("scheduled"), "the retry is scheduled")
        due_in = await yard.db.fetchval(
            "SELECT extract(epoch FROM run_at - now())::float8 FROM jobyard.scheduled WHERE job = $1", retry
        )
        assert 3580 < due_in <= 3600
        assert (await yard.place(retry))["attempt"] == 1


async def test_an_async_handler_past_its_time_is_cancelled_and_retried_at_last_as_a_timeout(
    yard: Yard,
) -> None:
    cancelled: list[int] = []

    async def sleep(ctx: Context) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(ctx.attempt)
            raise

    (job,) = await yard.add(max_attempts=2, timeout_seconds=0.05, backoff=AT_ONCE)
    async with yard.working({"t": sleep}):
        done = await end_with_retries(yard, job)
    assert cancelled == [1, 2]
    assert (done["status"], done["reason"], done["attempt"]) == ("failed", "timeout", 2)
    assert json.loads(done["error"]) == {"type": "Timeout", "message": "the attempt ran longer than 0.05 s"}
    assert await yard.tries(job) == [(1, "retry")]


async def test_a_thread_past_its_time_gives_back_its_slot_and_other_jobs_go_on(yard: Yard) -> None:
    let_go = threading.Event()

    def block(payload: str) -> str:
        if payload == "block":
            let_go.wait(30)
        return payload

    try:
        async with yard.working({"t": block}, concurrency=2) as working:
            (stuck,) = await yard.add(payload="block", timeout_seconds=0.05, max_attempts=1)
            assert (await yard.end_of(stuck))["reason"] == "timeout"
            jobs = await yard.add(count=20, payload="go on")
            for job in jobs:
                assert (await yard.end_of(job))["status"] == "completed"
            assert not working.worker.exit_code
    finally:
        let_go.set()


async def test_as_many_stuck_threads_as_slots_drain_the_worker_for_its_supervisor_to_start_anew(
    yard: Yard,
) -> None:
    let_go = threading.Event()

    def block() -> None:
        let_go.wait(30)

    try:
        async with yard.working({"t": block}, concurrency=2) as working:
            jobs = await yard.add(count=2, timeout_seconds=0.05, max_attempts=1)
            await asyncio.wait_for(asyncio.shield(working.task), 10)
            assert working.worker.exit_code == 70
            assert working.worker.must_exit
            for job in jobs:
                assert (await yard.end_of(job))["reason"] == "timeout"
            assert await yard.count("worker") == 0
    finally:
        let_go.set()


async def test_threads_that_return_late_are_stuck_no_more(yard: Yard) -> None:
    let_go = threading.Event()

    def block(payload: str) -> None:
        if payload == "block":
            let_go.wait(30)

    try:
        async with yard.working({"t": block}, concurrency=2) as working:
            for _ in range(4):
                let_go.clear()
                (job,) = await yard.add(payload="block", timeout_seconds=0.05, max_attempts=1)
                assert (await yard.end_of(job))["reason"] == "timeout"
                let_go.set()
                await until(lambda: not working.worker.must_exit, "the thread returned")
            assert not working.task.done()
            (job,) = await yard.add(payload="go on")
            assert (await yard.end_of(job))["status"] == "completed"
    finally:
        let_go.set()


async def test_larger_priorities_run_first(yard: Yard) -> None:
    order: list[int] = []

    async def note(payload: int) -> None:
        order.append(payload)

    for priority in (0, 9, 5, 7):
        await yard.add(count=2, payload=priority, priority=priority)
    async with yard.working({"t": note}, concurrency=1):
        await yard.all_ended()
    assert order == [9, 9, 7, 7, 5, 5, 0, 0]


async def test_jobs_of_one_lane_start_in_the_order_of_their_creation(yard: Yard) -> None:
    order: list[int] = []

    async def note(payload: int) -> None:
        order.append(payload)

    for number in range(30):
        await yard.add(payload=number)
    async with yard.working({"t": note}, concurrency=1):
        await yard.all_ended()
    assert order == list(range(30))


async def test_two_workers_share_two_thousand_jobs_and_none_runs_twice(yard: Yard) -> None:
    starts: list[tuple[str, UUID]] = []

    def noting(name: str) -> Any:
        async def note(ctx: Context) -> None:
            starts.append((name, ctx.job_id))
            await asyncio.sleep(0.001)

        return note

    async with (
        yard.working({"t": noting("a")}, concurrency=16) as a,
        yard.working({"t": noting("b")}, concurrency=16) as b,
    ):
        await a.started()
        await b.started()
        jobs = [job for _ in range(8) for job in await yard.add(count=250)]
        await yard.all_ended()
    assert sorted(job for _, job in starts) == sorted(jobs)
    assert {name for name, _ in starts} == {"a", "b"}
    rows = await yard.db.fetch("SELECT status, attempt, count(*) AS jobs FROM jobyard.done GROUP BY 1, 2")
    assert [tuple(row) for row in rows] == [("completed", 1, 2000)]


async def test_a_result_that_the_database_refuses_fails_its_own_job_and_no_other(yard: Yard) -> None:
    async def handle(payload: int) -> Any:
        return msgspec.Raw(b"{not json") if payload == 13 else payload

    jobs = [(await yard.add(payload=number))[0] for number in range(40)]
    async with yard.working({"t": handle}, concurrency=40):
        await yard.all_ended()
    ends = [await yard.end_of(job) for job in jobs]
    assert [end["status"] for end in ends] == ["failed" if n == 13 else "completed" for n in range(40)]
    assert json.loads(ends[13]["error"])["type"] == "InvalidResult"
    assert ends[13]["reason"] == "non_retryable"
    assert [end["result"] for end in ends[14:]] == [str(number) for number in range(14, 40)]


@pytest.mark.parametrize(
    "value",
    [
        Retry(after=float("nan")),
        Retry(after="5"),
        Fail(ValueError("x")),
        Retry(message=b"x"),
        Fail("\0\ud800"),
    ],  # type: ignore[arg-type] - values a user's type checker would refuse
    ids=["nan", "text", "exception", "bytes", "unstorable"],
)
async def test_a_value_that_a_handler_got_wrong_never_ends_the_worker(yard: Yard, value: Any) -> None:
    async def handle(payload: str) -> Any:
        return value if payload == "wrong" else None

    async with yard.working({"t": handle}) as working:
        await yard.add(payload="wrong", max_attempts=1)
        (good,) = await yard.add(payload="good")
        assert (await yard.end_of(good))["status"] == "completed"
        await yard.all_ended()
        assert not working.task.done()


async def test_an_unstorable_error_in_a_retry_stays_its_own(yard: Yard) -> None:
    async def handle(payload: str) -> Any:
        if payload == "bad":
            raise ValueError("\0 \ud800 " + "x" * 100_000)

    async with yard.working({"t": handle}):
        (bad,) = await yard.add(payload="bad", backoff=Backoff(60, 60))
        await until(lambda: yard.tries(bad), "the attempt is on record")
    stored = json.loads(await yard.db.fetchval("SELECT error FROM jobyard.attempt"))
    assert stored["type"] == "ValueError"
    assert stored["message"].startswith("\N{REPLACEMENT CHARACTER} ? x")


async def test_the_worker_leaves_types_it_has_no_handler_for_to_others(yard: Yard) -> None:
    async def handle() -> None: ...

    async with yard.working({"mine": handle}) as working:
        (other,) = await yard.add("other")
        (mine,) = await yard.add("mine")
        await yard.end_of(mine)
        await working.idle(yard)
        assert await yard.status(other) == "pending"
        assert (await yard.place(other))["attempt"] == 0
