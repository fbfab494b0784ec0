"""`run_until_idle` and `run`: the worker of a test."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import pytest

import jobyard as package
from jobyard import Context, Fail, Retry
from jobyard.testing import AttemptFailed, Job, NeverIdle, NoHandler, Yard
from logged import logged


class OutOfStock(Exception):
    pass


@dataclass
class Order:
    item: str
    count: int = 1


def test_a_job_runs_through_the_whole_life_of_a_job(jobyard: Yard) -> None:
    @jobyard.handler("order")
    async def order(payload: Order, ctx: Context) -> dict[str, Any]:
        assert jobyard.job(str(ctx.job_id)).status == "processing"
        return {"ordered": payload.item, "by": ctx.tags}

    created = jobyard.create("order", {"item": "tea"}, tags=["web"])
    assert created.status == "pending"
    [ran] = jobyard.run_until_idle()
    assert (ran.id, ran.status, ran.result) == (created.id, "completed", {"ordered": "tea", "by": ["web"]})
    assert ran == jobyard.job(created)
    assert [(each.attempt, each.outcome) for each in ran.attempts] == [(1, "completed")]
    assert [event.type for event in jobyard.client.events(created.id)] == [
        "job.completed",
        "job.started",
        "job.created",
    ]


def test_an_http_job_may_call_a_server_of_the_test(jobyard: Yard) -> None:
    created = jobyard.create("http", {"url": f"{jobyard.url}/healthz"})
    [ran] = jobyard.run_until_idle()
    assert (ran.id, ran.status, ran.result["status"]) == (created.id, "completed", 200)


def test_jobs_that_jobs_create_run_too(jobyard: Yard) -> None:
    @jobyard.handler("first")
    async def first() -> None:
        jobyard.create("second")

    @jobyard.handler("second")
    def second() -> None:
        httpx.post(f"{jobyard.url}/api/jobs", json={"type": "third", "payload": {}}).raise_for_status()

    @jobyard.handler("third")
    async def third() -> None: ...

    jobyard.create("first")
    assert [job.type for job in jobyard.run_until_idle()] == ["first", "second", "third"]


def test_jobs_run_by_priority_and_then_in_the_order_of_their_creation(jobyard: Yard) -> None:
    ran: list[str] = []
    for type in ("a", "b"):
        jobyard.handler(type)(lambda payload: ran.append(payload["name"]))
    for type, name, priority in [("b", "1", 5), ("a", "2", 5), ("b", "3", 5), ("a", "0", 9), ("b", "4", 1)]:
        jobyard.create(type, {"name": name}, priority=priority)
    jobyard.run_until_idle()
    assert ran == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("way", ["run_until_idle", "run_until_idle_async"])
def test_a_ready_job_that_nobody_here_handles_stays_pending_with_a_warning_where_the_test_runs_jobs(
    jobyard: Yard, way: str
) -> None:
    async def in_a_coroutine() -> list[Job]:
        return await jobyard.run_until_idle_async()

    jobyard.handler("greet")(lambda: None)
    jobyard.create("greet", delay_seconds=60)
    job = jobyard.create("gret")
    with pytest.warns(NoHandler, match=r"no handler: gret \(1\); .* for .*\bgreet\b") as warned:
        ran = jobyard.run_until_idle() if way == "run_until_idle" else asyncio.run(in_a_coroutine())
    assert (ran, jobyard.job(job).status) == ([], "pending")
    assert [warning.filename for warning in warned] == [__file__]


def test_of_two_troubles_the_error_of_a_handler_is_the_one_that_is_told(jobyard: Yard) -> None:
    jobyard.handler("order")(order_tea)
    jobyard.create("order", {"item": "tea"})
    jobyard.create("ordre")
    with pytest.raises(OutOfStock):
        jobyard.run_until_idle()


def test_a_delayed_job_and_a_waiting_retry_do_not_run(jobyard: Yard) -> None:
    jobyard.handler("fails")(lambda: Retry(after=30))
    jobyard.create("fails")
    jobyard.create("fails", delay_seconds=0.001)
    time.sleep(0.002)
    [ran] = jobyard.run_until_idle()
    assert (ran.status, ran.attempt) == ("pending", 1)
    assert jobyard.run_until_idle() == []


def test_a_retry_without_a_pause_runs_at_once_until_its_tries_are_used_up(jobyard: Yard) -> None:
    jobyard.handler("fails")(lambda: Retry(after=0, message="not yet"))
    jobyard.create("fails", max_attempts=3)
    ran = jobyard.run_until_idle()
    assert [(job.attempt, job.status, job.reason) for job in ran] == [
        (1, "pending", None),
        (2, "pending", None),
        (3, "failed", "exhausted"),
    ]
    assert ran[-1].error == {"type": "Retry", "message": "not yet"}
    assert [each.outcome for each in ran[-1].attempts] == ["retry", "retry", "failed"]


@pytest.mark.parametrize("way", ["async def", "def"])
def test_what_a_handler_raises_is_raised_with_its_own_traceback(jobyard: Yard, way: str) -> None:
    async def awaited() -> None:
        raise OutOfStock("no tea")

    def called() -> None:
        raise OutOfStock("no tea")

    jobyard.handler("order")(awaited if way == "async def" else called)
    job = jobyard.create("order")
    with pytest.raises(OutOfStock, match="no tea") as caught:
        jobyard.run_until_idle()
    shown = [frame.name for frame in caught.traceback if not frame.ishidden(caught)]
    assert shown == [
        "test_what_a_handler_raises_is_raised_with_its_own_traceback",
        "awaited" if way == "async def" else "called",
    ]
    assert f"In attempt 1 of 5 of order {job.id} (pending)." in caught.value.__notes__
    assert jobyard.job(job).attempts[0].error["type"] == "OutOfStock"


def test_the_first_error_is_raised_when_all_have_run(jobyard: Yard) -> None:
    @jobyard.handler("order")
    def order(payload: dict[str, Any]) -> None:
        if payload["item"] != "tea":
            raise OutOfStock(payload["item"])

    for item in ("milk", "sugar", "tea"):
        jobyard.create("order", {"item": item})
    with pytest.raises(OutOfStock, match="milk") as caught:
        jobyard.run_until_idle()
    assert "1 more attempts failed in this run." in caught.value.__notes__
    assert [job.status for job in jobyard.jobs()] == ["pending", "pending", "completed"]


def test_errors_are_left_to_the_jobs_when_asked(jobyard: Yard) -> None:
    @jobyard.handler("order")
    def order() -> None:
        raise OutOfStock("no tea")

    jobyard.create("order", max_attempts=1)
    [ran] = jobyard.run_until_idle(raising=False)
    assert (ran.status, ran.reason, ran.error["message"]) == ("failed", "exhausted", "no tea")


def test_even_an_exit_and_a_failed_assertion_in_a_handler_are_raised(jobyard: Yard) -> None:
    @jobyard.handler("order")
    def order(payload: dict[str, bool]) -> None:
        assert payload["exit"], "an assertion of the handler"
        raise SystemExit(3)

    jobyard.create("order", {"exit": True})
    with pytest.raises(SystemExit):
        jobyard.run_until_idle()
    jobyard.create("order", {"exit": False})
    with pytest.raises(AssertionError, match="an assertion of the handler"):
        jobyard.run_until_idle()


def test_a_retry_or_fail_by_value_is_no_error(jobyard: Yard) -> None:
    jobyard.handler("order")(lambda: Fail("no such customer"))
    jobyard.create("order")
    [ran] = jobyard.run_until_idle()
    assert (ran.status, ran.reason, ran.error) == (
        "failed",
        "non_retryable",
        {"type": "Fail", "message": "no such customer"},
    )


def test_what_the_worker_refuses_is_raised(jobyard: Yard) -> None:
    @jobyard.handler("order")
    def order(payload: Order) -> float:
        return float("nan")

    jobyard.create("order", {"items": "tea"})
    with pytest.raises(AttemptFailed, match=r"InvalidPayload: .*missing required field `item`"):
        jobyard.run_until_idle()
    jobyard.create("order", {"item": "tea"})
    with pytest.raises(AttemptFailed, match=r"InvalidResult: .*NaN"):
        jobyard.run_until_idle()
    with pytest.raises(AttemptFailed, match=r"InvalidResult: Retry\(after=...\) takes seconds"):
        jobyard.run(lambda: Retry(after=-1))


@pytest.mark.parametrize("way", ["async def", "def"])
def test_a_time_limit_ends_an_attempt_and_is_raised(jobyard: Yard, way: str) -> None:
    may_end = threading.Event()

    async def awaited() -> None:
        await asyncio.Event().wait()

    jobyard.handler("slow")(awaited if way == "async def" else lambda: may_end.wait(30))
    job = jobyard.create("slow", timeout_seconds=0.01, max_attempts=1)
    try:
        with pytest.raises(AttemptFailed, match=r"Timeout: the attempt ran longer than 0.01 s"):
            jobyard.run_until_idle()
    finally:
        may_end.set()
    assert jobyard.job(job).reason == "timeout"


def test_a_job_that_never_ends_is_told_with_what_ran(jobyard: Yard) -> None:
    jobyard.handler("loop")(lambda: jobyard.create("loop") and None)
    jobyard.create("loop")
    with pytest.raises(NeverIdle, match=r"7 attempts ran.*most: loop \(7\)\. What is ready: loop \(1\)"):
        jobyard.run_until_idle(limit=7)


def test_as_many_attempts_as_are_allowed_are_no_fault(jobyard: Yard) -> None:
    jobyard.handler("t")(lambda: None)
    for _ in range(3):
        jobyard.create("t")
    assert len(jobyard.run_until_idle(limit=3)) == 3


def test_a_handler_cannot_run_the_jobs_of_its_test(jobyard: Yard) -> None:
    @jobyard.handler("async")
    async def awaited() -> None:
        await jobyard.run_until_idle_async()

    jobyard.handler("sync")(lambda: jobyard.run_until_idle())
    for type in ("async", "sync"):
        jobyard.create(type)
        with pytest.raises(RuntimeError, match="cannot run the jobs of the test that runs it"):
            jobyard.run_until_idle()


def test_what_the_test_has_set_in_its_context_is_seen_by_its_handlers(jobyard: Yard) -> None:
    setting: contextvars.ContextVar[str] = contextvars.ContextVar("setting", default="unset")
    setting.set("by the test")

    @jobyard.handler("async")
    async def awaited() -> str:
        return setting.get()

    jobyard.handler("sync")(lambda: setting.get())
    for type in ("async", "sync"):
        jobyard.create(type)
    assert [job.result for job in jobyard.run_until_idle()] == ["by the test", "by the test"]


def test_what_a_handler_keeps_for_its_loop_is_good_in_the_next_run(jobyard: Yard) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    @jobyard.handler("t")
    async def t() -> None:
        loops.append(asyncio.get_running_loop())

    for _ in range(2):
        jobyard.create("t")
        jobyard.run_until_idle()
    assert loops[0] is loops[1]
    assert not loops[0].is_closed()


async def test_in_a_coroutine_handlers_share_the_loop_of_the_test(jobyard: Yard) -> None:
    ready = asyncio.Event()

    @jobyard.handler("t")
    async def t(payload: Any) -> bool:
        return await ready.wait()

    jobyard.create("t")
    asyncio.get_running_loop().call_soon(ready.set)
    assert [job.result for job in await jobyard.run_until_idle_async()] == [True]
    assert await jobyard.run_async("t") is True


@pytest.mark.parametrize("method", ["run", "run_until_idle"])
async def test_in_a_coroutine_the_plain_calls_say_which_to_await(jobyard: Yard, method: str) -> None:
    with pytest.raises(RuntimeError, match=r"await jobyard\.run_until_idle_async\(\)"):
        getattr(jobyard, method)(*(["email"] if method == "run" else []))


async def test_an_interrupted_run_leaves_nothing_that_goes_on(jobyard: Yard) -> None:
    begun, let_go = asyncio.Event(), asyncio.Event()

    @jobyard.handler("t")
    async def t() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            let_go.set()

    jobyard.create("t")
    running = asyncio.create_task(jobyard.run_until_idle_async())
    await begun.wait()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert let_go.is_set()


# One handler alone


async def order_tea(payload: Order, ctx: Context) -> dict[str, Any]:
    """Not registered: any function can be run."""
    if payload.count > 9:
        return {"attempt": ctx.attempt, "of": ctx.max_attempts, "type": ctx.type, "tags": ctx.tags}
    raise OutOfStock(payload.item)


def test_a_handler_is_run_alone_with_the_context_that_is_asked_for(jobyard: Yard) -> None:
    result = jobyard.run(order_tea, {"item": "tea", "count": 10}, attempt=4, max_attempts=7, tags=["a"])
    assert result == {"attempt": 4, "of": 7, "type": "order_tea", "tags": ["a"]}
    assert jobyard.jobs() == []


def test_a_handler_is_run_alone_by_its_type(jobyard: Yard) -> None:
    class Receipt(msgspec.Struct):
        number: int

    jobyard.handler("receipt")(lambda: Receipt(17))
    assert jobyard.run("receipt") == {"number": 17}


def test_a_handler_that_is_run_alone_raises_as_in_a_run_of_all(jobyard: Yard) -> None:
    with pytest.raises(OutOfStock, match="tea"):
        jobyard.run(order_tea, {"item": "tea"})
    with pytest.raises(AttemptFailed, match=r"InvalidPayload: .*`\$\.count`"):
        jobyard.run(order_tea, {"item": "tea", "count": "many"})


def test_the_log_tells_of_attempts_of_jobs_only(jobyard: Yard) -> None:
    jobyard.handler("order")(order_tea)
    with logged(level="debug") as log:
        with pytest.raises(OutOfStock):
            jobyard.run("order", {"item": "tea"})
        jobyard.run("order", {"item": "tea", "count": 10})
        assert log.facts == []
        jobyard.create("order", {"item": "tea"})
        jobyard.run_until_idle(raising=False)
        assert log.named("attempt.failed")


def test_a_retry_or_fail_of_a_handler_that_is_run_alone_is_its_answer(jobyard: Yard) -> None:
    assert jobyard.run(lambda: Retry(after=30)) == Retry(after=30)
    assert jobyard.run(lambda: Fail("never")) == Fail("never")


def test_an_unknown_type_is_told_with_those_there_are(jobyard: Yard) -> None:
    jobyard.handler("receipt")(lambda: None)
    with pytest.raises(LookupError, match=r"no handler for type 'recept'; there are .*email.*receipt"):
        jobyard.run("recept")


# Handlers


def test_handlers_of_imported_modules_are_known_and_a_test_may_stand_in_for_one(
    jobyard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobyard.worker.handlers.registered._by_type", {})
    package.handler("charge")(lambda: "real")
    assert jobyard.run("charge") == "real"
    jobyard.handler("charge")(lambda: "stand-in")
    assert jobyard.run("charge") == "stand-in"
    jobyard.reset()
    assert jobyard.run("charge") == "real"


def test_the_mails_of_the_built_in_handler_are_in_the_outbox_in_the_order_they_were_sent(
    jobyard: Yard,
) -> None:
    jobyard.create("email", {"to": "ada@example.com", "subject": "Grüße"}, priority=1)
    jobyard.create("email", {"to": "grace@example.com", "text": "Hello"}, priority=2)
    jobyard.run_until_idle()
    first, second = jobyard.outbox
    assert (first["to"], first.get_content().strip()) == ("grace@example.com", "Hello")
    assert (second["to"], second["subject"]) == ("ada@example.com", "Grüße")
    jobyard.reset()
    assert jobyard.outbox == []


def test_the_traceback_of_a_job_begins_at_its_handler(jobyard: Yard) -> None:
    @jobyard.handler("t")
    async def t() -> None:
        raise OutOfStock

    jobyard.create("t", max_attempts=1)
    [ran] = jobyard.run_until_idle(raising=False)
    _, first, *_ = ran.error["traceback"].splitlines()
    assert first.startswith(f'  File "{__file__}"')
    assert "During handling" not in ran.error["traceback"]
