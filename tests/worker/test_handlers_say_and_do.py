"""What handlers say while they run, what they are told, and what they do on the database: on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from jobyard import AttemptCancelled, Context, InvalidJob, LeaseLost
from jobyard.config import Settings
from jobyard.domain.job import DEFAULT_TENANT
from jobyard.domain.retry import Backoff
from jobyard.main import child_options
from jobyard.store import verbs
from jobyard.worker.context import MAX_LINE_BYTES
from jobyard.worker.handlers import Handlers
from jobyard.worker.reports import MAX_LINES
from worker.processes import until_noted
from worker.yard import Yard, until

HEARD_WITHIN_SECONDS = 2.0
"""As the guide to long jobs has it."""


@pytest.fixture
async def account(yard: Yard) -> AsyncIterator[str]:
    """A table of the user's, in the database of the jobs."""
    await yard.db.execute("CREATE TABLE IF NOT EXISTS public.account (owner text, amount int)")
    yield "public.account"
    await yard.db.execute("DROP TABLE public.account")


async def lines_of(yard: Yard, job: UUID) -> list[tuple[str, str]]:
    rows = await yard.db.fetch(
        "SELECT level, text FROM jobyard.job_log WHERE job = $1 ORDER BY lease, line", job
    )
    return [(row["level"], row["text"]) for row in rows]


async def how_ended(yard: Yard, job: UUID) -> tuple[str, str | None, int]:
    done = await yard.end_of(job)
    return done["status"], done["reason"], done["attempt"]


# What they say


async def test_what_a_handler_says_is_on_its_job_before_the_job_ends(yard: Yard) -> None:
    async def says(ctx: Context) -> None:
        ctx.progress(10, "begun")
        ctx.log("first")
        ctx.log("second", "warning")
        ctx.progress(90.5, "nearly")

    def says_in_a_thread(ctx: Context) -> None:
        ctx.log("from a thread", "error")
        ctx.progress(message="in words")

    async with yard.working({"says": says, "thread": says_in_a_thread}):
        (one,), (two,) = await yard.add("says"), await yard.add("thread")
        assert await how_ended(yard, one) == await how_ended(yard, two) == ("completed", None, 1)
    assert await lines_of(yard, one) == [("info", "first"), ("warning", "second")]
    assert await lines_of(yard, two) == [("error", "from a thread")]
    said = await yard.db.fetch("SELECT job, percent, message FROM jobyard.progress")
    assert {row["job"]: (row["percent"], row["message"]) for row in said} == {
        one: (90.5, "nearly"),
        two: (None, "in words"),
    }


async def test_what_is_said_is_bounded_in_lines_and_bytes_and_never_fails_the_attempt(yard: Yard) -> None:
    async def babbles(ctx: Context) -> None:
        ctx.log("ä" * MAX_LINE_BYTES)
        ctx.log("a\x00b \ud800")
        for number in range(MAX_LINES + 10):
            ctx.log(str(number))

    async with yard.working({"t": babbles}):
        (job,) = await yard.add()
        assert await how_ended(yard, job) == ("completed", None, 1)
    lines = await lines_of(yard, job)
    assert len(lines) == MAX_LINES + 1
    assert len(lines[0][1].encode()) <= MAX_LINE_BYTES
    assert lines[-1] == ("warning", f"more than {MAX_LINES} lines: no more are kept")


@pytest.mark.parametrize("percent", [-1, 100.5, float("nan")])
async def test_a_progress_that_cannot_be_fails_the_attempt(yard: Yard, percent: float) -> None:
    async def says(ctx: Context) -> None:
        ctx.progress(percent)

    async with yard.working({"t": says}):
        (job,) = await yard.add(max_attempts=1)
        assert json.loads((await yard.end_of(job))["error"])["type"] == "ValueError"


async def test_an_attempt_whose_lease_is_lost_writes_nothing_more_and_is_told_to_end(yard: Yard) -> None:
    lost, told = asyncio.Event(), asyncio.Event()

    async def runs(ctx: Context) -> None:
        await lost.wait()
        ctx.log("too late")
        ctx.progress(99)
        try:
            await asyncio.sleep(3600)
        finally:
            told.set()

    async with yard.working({"t": runs}):
        (job,) = await yard.add()
        await until(
            lambda: yard.db.fetchval("SELECT true FROM jobyard.active WHERE job = $1", job), "it runs"
        )
        await yard.db.execute("DELETE FROM jobyard.active WHERE job = $1", job)
        lost.set()
        await asyncio.wait_for(told.wait(), 20)
    assert await yard.count("job_log") == await yard.count("progress") == await yard.count("done") == 0


async def test_a_level_that_is_none_fails_the_attempt_and_harms_no_other(yard: Yard) -> None:
    async def good(ctx: Context) -> None:
        ctx.log("kept")

    async def bad(ctx: Context) -> None:
        ctx.log("x", "a\0")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - a user's mistake

    async with yard.working({"good": good, "bad": bad}):
        (one,), (two,) = await yard.add("good"), await yard.add("bad", max_attempts=1)
        assert "level is one of debug, info" in (await yard.end_of(two))["error"]
        await yard.end_of(one)
    assert await lines_of(yard, one) == [("info", "kept")]


# What they are told


async def test_a_cancelled_job_ends_its_handler_and_is_never_tried_again(yard: Yard) -> None:
    begun = threading.Barrier(3)
    ended: list[str] = []

    async def waits(ctx: Context) -> None:
        await asyncio.to_thread(begun.wait)
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("async")

    def looks(ctx: Context) -> None:
        begun.wait()
        pause = threading.Event()
        while True:
            try:
                ctx.raise_if_cancelled()
            except AttemptCancelled:
                ended.append("thread")
                raise
            pause.wait(0.02)

    async with yard.working({"waits": waits, "looks": looks}):
        jobs = [*await yard.add("waits"), *await yard.add("looks")]
        await asyncio.to_thread(begun.wait)
        for job in jobs:
            assert await verbs.cancel(yard.db, job, DEFAULT_TENANT) is verbs.Cancelled.ASKED
        for job in jobs:
            assert await how_ended(yard, job) == ("failed", "cancelled", 1)
    assert sorted(ended) == ["async", "thread"]
    longest = await yard.db.fetchval(
        "SELECT extract(epoch FROM max(d.finished_at - c.at)) FROM jobyard.cancel_request c JOIN jobyard.done d USING (job)"
    )
    assert longest < 2 * HEARD_WITHIN_SECONDS
    assert await yard.count("ready") == await yard.count("scheduled") == 0


async def test_a_handler_that_completes_all_the_same_has_completed_its_job(yard: Yard) -> None:
    begun = asyncio.Event()

    async def insists(ctx: Context) -> str:
        begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return f"cancelled: {ctx.cancelled}"
        return "never"

    async with yard.working({"t": insists}):
        (job,) = await yard.add()
        await begun.wait()
        await verbs.cancel(yard.db, job, DEFAULT_TENANT)
        done = await yard.end_of(job)
    assert (done["status"], json.loads(done["result"])) == ("completed", "cancelled: True")


# What they do


async def test_a_handler_creates_jobs_once_however_often_it_is_tried(yard: Yard) -> None:
    async def parent(ctx: Context) -> list[str]:
        always = await ctx.create("child", {"n": 1}, queue="other", tags=["x"])
        once = await ctx.create("child", {"n": 2}, idempotency_key="only one")
        again = await ctx.create("child", {"n": 2}, idempotency_key="only one")
        assert once == again
        return [str(always), str(once)]

    def in_a_thread(ctx: Context) -> str:
        return str(ctx.create_from_thread("child", {"n": 3}, delay_seconds=3600))

    async with yard.working({"parent": parent, "thread": in_a_thread}):
        (one,), (two,) = await yard.add("parent"), await yard.add("thread")
        always, once = json.loads((await yard.end_of(one))["result"])
        later = json.loads((await yard.end_of(two))["result"])
    made = await yard.db.fetch("SELECT id, queue FROM jobyard.job WHERE type = 'child'")
    assert {str(row["id"]): row["queue"] for row in made} == {
        always: "other",
        once: "default",
        later: "default",
    }
    assert await yard.count("scheduled") == 1


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"priority": 10}, "priority"),
        ({"queue": "no spaces"}, "queue"),
        ({"colour": "red"}, "colour"),
        ({"payload": {1, 2}.__iter__()}, "payload"),
        ({"payload": float("nan")}, "payload"),
        ({"payload": {"a": ["\0"]}}, "U+0000"),
        ({"tags": ["\0"]}, "U+0000"),
        ({"run_at": datetime(9999, 1, 1, tzinfo=UTC)}, "1970 to 9998"),
        ({"run_at": datetime(2026, 1, 1)}, "run_at"),
        ({"run_at": datetime(2030, 1, 1, tzinfo=UTC), "delay_seconds": 1}, "exclude"),
        ({"metadata": {"k": "x" * 5000}}, "4096 bytes"),
    ],
)
async def test_a_job_that_cannot_be_is_refused_and_none_is_made(
    yard: Yard, options: dict[str, Any], why: str
) -> None:
    async def parent(ctx: Context) -> str:
        with pytest.raises(InvalidJob) as refused:
            await ctx.create("child", **options)
        return str(refused.value)

    async with yard.working({"t": parent}):
        (job,) = await yard.add()
        assert why in json.loads((await yard.end_of(job))["result"])
    assert await yard.count("job") == 1


@pytest.mark.parametrize("payload", [[None, 1], {"1": None}, "null", "\\u0000", (None, 1.5)])
async def test_a_payload_that_only_looks_odd_is_kept_as_it_is(yard: Yard, payload: Any) -> None:
    async def parent(ctx: Context) -> str:
        return str(await ctx.create("child", payload))

    async with yard.working({"t": parent}):
        (job,) = await yard.add()
        await yard.end_of(job)
    kept = await yard.db.fetchval("SELECT payload FROM jobyard.job WHERE type = 'child'")
    assert json.loads(kept) == json.loads(json.dumps(payload))


async def test_who_would_block_the_event_loop_is_refused_and_the_worker_goes_on(yard: Yard) -> None:
    async def parent(ctx: Context) -> str:
        with pytest.raises(RuntimeError, match=r"await ctx\.create"):
            ctx.create_from_thread("child")
        return str(await asyncio.to_thread(ctx.create_from_thread, "child"))

    async with yard.working({"t": parent}):
        (job,) = await yard.add()
        assert await how_ended(yard, job) == ("completed", None, 1)
    assert await yard.count("job") == 2


async def test_a_transaction_completes_the_job_together_with_its_effects(yard: Yard, account: str) -> None:
    async def pays(ctx: Context) -> str:
        async with ctx.transaction() as transaction:
            await transaction.connection.execute(f"INSERT INTO {account} VALUES ('ada', 5)")
            await transaction.create("receipt", {"amount": 5})
            settings = await transaction.connection.fetchval("SHOW enable_seqscan")
            transaction.result = {"paid": 5, "seqscan": settings}
            async with yard.pool.acquire() as others:
                assert await others.fetchval("SELECT count(*) FROM jobyard.done") == 0
        return "is not kept"

    async with yard.working({"t": pays}):
        (job,) = await yard.add()
        done = await yard.end_of(job)
    assert (done["status"], json.loads(done["result"])) == ("completed", {"paid": 5, "seqscan": "on"})
    assert await yard.db.fetchval(f"SELECT sum(amount) FROM {account}") == 5
    assert await yard.db.fetchval("SELECT count(*) FROM jobyard.job WHERE type = 'receipt'") == 1
    assert await yard.db.fetchval("SELECT count(*) FROM jobyard.done WHERE job = $1", job) == 1


async def test_what_is_raised_within_a_transaction_takes_all_of_it_back(yard: Yard, account: str) -> None:
    async def breaks(ctx: Context) -> None:
        async with ctx.transaction() as transaction:
            await transaction.connection.execute(f"INSERT INTO {account} VALUES ('ada', 5)")
            await transaction.create("receipt")
            raise OSError("no ink")

    async with yard.working({"t": breaks}):
        (job,) = await yard.add(max_attempts=1)
        assert await how_ended(yard, job) == ("failed", "exhausted", 1)
    assert await yard.db.fetchval(f"SELECT count(*) FROM {account}") == 0
    assert await yard.count("job") == 1


async def test_jobs_of_a_new_type_survive_that_their_first_transaction_was_taken_back(yard: Yard) -> None:
    async def twice(ctx: Context) -> None:
        async with ctx.transaction() as transaction:
            for _ in range(2):
                await transaction.create("new")
            if ctx.attempt == 1:
                raise OSError("no ink")

    async def new() -> None: ...

    async with yard.working({"t": twice, "new": new}):
        (job,) = await yard.add(backoff=Backoff(0, 0))
        assert await how_ended(yard, job) == ("completed", None, 2)
        await yard.all_ended()
    assert await yard.count("done") == 3


async def test_what_follows_a_commit_cannot_undo_it_and_is_not_tried_again(yard: Yard, account: str) -> None:
    async def fails_late(ctx: Context) -> None:
        async with ctx.transaction() as transaction:
            await transaction.connection.execute(f"INSERT INTO {account} VALUES ('ada', 5)")
        raise OSError("too late")

    async with yard.working({"t": fails_late}):
        (job,) = await yard.add()
        assert await how_ended(yard, job) == ("completed", None, 1)
    assert await yard.db.fetchval(f"SELECT count(*) FROM {account}") == 1
    assert await yard.tries(job) == []


async def test_a_transaction_whose_lease_is_lost_writes_nothing(yard: Yard, account: str) -> None:
    lost: list[BaseException] = []

    async def late(ctx: Context) -> None:
        try:
            async with ctx.transaction() as transaction:
                await transaction.connection.execute(f"INSERT INTO {account} VALUES ('ada', 5)")
                await yard.db.execute("DELETE FROM jobyard.active WHERE job = $1", ctx.job_id)
        except LeaseLost as error:
            lost.append(error)
            raise

    async with yard.working({"t": late}):
        (job,) = await yard.add()
        await until(lambda: lost, "the lease is lost")
    # The worker has drained: whatever it had to write is written.
    assert str(job) in str(lost[0])
    assert await yard.db.fetchval(f"SELECT count(*) FROM {account}") == 0
    assert await yard.count("done") == 0


# The same from a child process


@asynccontextmanager
async def working_in_children(yard: Yard, *types: str) -> AsyncGenerator[None]:
    bound = Handlers()
    for type in types:
        bound.add(type, lambda: "answered in the worker", process=True)
    options = child_options(Settings(app="child_jobs", database_url=yard.url))
    environment = dict(options.environment) | {"DATABASE_URL": yard.url}
    options = replace(options, folder=str(Path(__file__).parent), environment=environment)
    async with yard.working(bound, children=options):
        yield


@pytest.mark.parametrize("type", ["says", "says in no loop", "says from a thread"])
async def test_a_handler_in_a_child_says_and_creates_as_any_other(yard: Yard, type: str) -> None:
    async with working_in_children(yard, type):
        (job,) = await yard.add(type)
        done = await yard.end_of(job)
    assert done["status"] == "completed", done["error"]
    assert await lines_of(yard, job) == [("info", "from a child")]
    assert await yard.db.fetchval("SELECT message FROM jobyard.progress WHERE job = $1", job) == "half"
    made = await yard.db.fetchval("SELECT id FROM jobyard.job WHERE type = 'later'")
    assert json.loads(done["result"]) == str(made)


async def test_a_transaction_in_a_child_completes_its_job_once(yard: Yard) -> None:
    async with working_in_children(yard, "pays"):
        (job,) = await yard.add("pays")
        done = await yard.end_of(job)
    assert (done["status"], json.loads(done["result"])) == ("completed", "paid")
    assert await yard.tries(job) == []


async def test_a_cancelled_job_stops_its_child(yard: Yard, tmp_path: Path) -> None:
    async with working_in_children(yard, "block"):
        (job,) = await yard.add("block", payload=str(tmp_path / "notes"))
        await until_noted(tmp_path / "notes")
        await verbs.cancel(yard.db, job, DEFAULT_TENANT)
        assert await how_ended(yard, job) == ("failed", "cancelled", 1)
