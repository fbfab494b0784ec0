"""A job's wait and its attempts as spans, on a real database: whose children they are, and what handlers see of them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from jobyard import Context
from jobyard.domain.retry import Backoff
from jobyard.store import upkeep
from traced import CALLER, TRACE, TRACEPARENT, Traced, parent_id, span_id, trace_id, traceparent, tracing
from worker.yard import Yard, until

AT_ONCE = Backoff(base_seconds=0.001, cap_seconds=0.001)


@pytest.fixture
def traced() -> Iterator[Traced]:
    with tracing() as traced:
        yield traced


def active_span() -> str:
    return f"{trace.get_current_span().get_span_context().span_id:016x}"


async def test_dispatch_and_attempt_are_below_what_created_the_job(yard: Yard, traced: Traced) -> None:
    async def mail() -> None: ...

    began = time.time_ns()
    [job] = await yard.add("mail", queue="night", trace=TRACEPARENT)
    async with yard.working({"mail": mail}):
        await yard.end_of(job)
    dispatch, attempt = traced.one("dispatch mail"), traced.one("process mail")
    assert {trace_id(dispatch), trace_id(attempt)} == {TRACE}
    assert (parent_id(dispatch), parent_id(attempt)) == (CALLER, span_id(dispatch))
    assert (dispatch.kind, attempt.kind) == (SpanKind.INTERNAL, SpanKind.CONSUMER)
    about = {
        "messaging.system": "jobyard",
        "messaging.destination.name": "night",
        "messaging.message.id": str(job),
        "jobyard.job.id": str(job),
        "jobyard.job.type": "mail",
        "jobyard.queue": "night",
        "jobyard.run": 1,
        "jobyard.attempt": 1,
    }
    assert dict(dispatch.attributes or {}) == about
    assert dict(attempt.attributes or {}) == about | {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "jobyard.outcome": "completed",
    }
    assert attempt.status.status_code is StatusCode.UNSET
    assert not attempt.links
    assert dispatch.start_time
    assert dispatch.end_time
    # The database and this process share a clock here; its microseconds are rounded.
    assert began - 1_000_000 <= dispatch.start_time <= dispatch.end_time == attempt.start_time


async def test_a_dispatch_lasts_as_long_as_the_job_was_ready_and_not_as_it_was_delayed(
    yard: Yard, traced: Traced
) -> None:
    [waiting, delayed] = [*await yard.add("t"), *await yard.add("t", delay_seconds=600)]
    await yard.db.execute("UPDATE jobyard.ready SET since = now() - interval '90 s' WHERE job = $1", waiting)
    await yard.db.execute("UPDATE jobyard.scheduled SET run_at = now()")
    await upkeep.promote(yard.db)
    async with yard.working({"t": lambda: None}):
        await yard.all_ended()
    seconds = {
        (span.attributes or {})["jobyard.job.id"]: ((span.end_time or 0) - (span.start_time or 0)) / 1e9
        for span in traced.named("dispatch t")
    }
    assert 90 <= seconds[str(waiting)] < 150
    assert seconds[str(delayed)] < 60


async def test_a_retry_links_to_the_attempt_before_wherever_that_ran(yard: Yard, traced: Traced) -> None:
    async def fail(ctx: Context) -> None:
        if ctx.attempt < 3:
            raise LookupError

    [job] = await yard.add("t", trace=TRACEPARENT, backoff=AT_ONCE)
    for attempts in (1, 2, 3):
        async with yard.working({"t": fail}):  # each in the hands of another worker
            await until(lambda so_far=attempts: len(traced.named("process t")) == so_far, "it has run")
        if attempts < 3:
            await until(lambda: upkeep.promote(yard.db), "its next try is due")
    assert await yard.status(job) == "completed"
    first, second, third = traced.named("process t")
    assert not first.links
    assert [(link.context.trace_id, link.context.span_id) for link in second.links] == [
        (first.get_span_context().trace_id, first.get_span_context().span_id)
    ]
    assert [link.context.span_id for link in third.links] == [second.get_span_context().span_id]
    assert {trace_id(span) for span in traced.spans} == {TRACE}
    assert len({span_id(span) for span in traced.spans}) == 6


async def test_a_job_without_a_trace_has_one_of_its_own_for_all_its_attempts(
    yard: Yard, traced: Traced
) -> None:
    def fail(ctx: Context) -> None:
        if ctx.attempt == 1:
            raise LookupError

    jobs = await yard.add("t", count=2, backoff=AT_ONCE)
    async with yard.working({"t": fail}):
        await until(lambda: len(traced.named("process t")) == 2, "both have failed")
        await until(lambda: yard.count("scheduled"), "they are on record")

        async def over() -> bool:
            await upkeep.promote(yard.db)
            return await yard.status_all(jobs, "completed")

        await until(over, "both are completed")
    traces = {
        str(job): {trace_id(s) for s in traced.spans if (s.attributes or {})["jobyard.job.id"] == str(job)}
        for job in jobs
    }
    assert [len(ids) for ids in traces.values()] == [1, 1]
    assert len(set.union(*traces.values())) == 2
    assert not any(span.parent for span in traced.named("dispatch t"))


async def test_a_handler_stands_in_its_attempts_span_on_the_loop_and_in_a_thread(
    yard: Yard, traced: Traced
) -> None:
    tracer = trace.get_tracer("users.own")

    async def asynchronous(ctx: Context) -> list[str | None]:
        await asyncio.sleep(0)
        with tracer.start_as_current_span("inner"):
            return [active_span(), ctx.traceparent]

    def threaded(ctx: Context) -> list[str | None]:
        assert threading.current_thread() is not threading.main_thread()
        with tracer.start_as_current_span("inner"):
            return [active_span(), ctx.traceparent]

    for type, function in (("a", asynchronous), ("b", threaded)):
        traced.exporter.clear()
        [job] = await yard.add(type, trace=TRACEPARENT)
        async with yard.working({type: function}):
            result = (await yard.end_of(job))["result"]
        attempt, inner = traced.one(f"process {type}"), traced.one("inner")
        assert parent_id(inner) == span_id(attempt)
        assert result == f'["{span_id(inner)}","{traceparent(attempt)}"]'


async def test_what_the_client_does_not_sample_is_not_sent_and_goes_on_unsampled(
    yard: Yard, traced: Traced
) -> None:
    def tell(ctx: Context) -> str | None:
        return ctx.traceparent

    [job] = await yard.add("t", trace=f"00-{TRACE}-{CALLER}-00")
    async with yard.working({"t": tell}):
        told = (await yard.end_of(job))["result"].strip('"')
    assert traced.spans == ()
    assert told.startswith(f"00-{TRACE}-")
    assert told.endswith("-00")
    assert CALLER not in told


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_nothing_of_one_job_shows_in_the_next(yard: Yard, traced: Traced, concurrency: int) -> None:
    """F38."""
    seen: list[tuple[str, str, str]] = []

    async def asynchronous(ctx: Context) -> None:
        before = active_span()
        # Left active, as careless code does.
        from opentelemetry.context import attach

        attach(trace.set_span_in_context(trace.INVALID_SPAN))
        await asyncio.sleep(0)
        seen.append((before, str(ctx.job_id), ctx.traceparent or ""))

    def threaded(ctx: Context) -> None:
        seen.append((active_span(), str(ctx.job_id), ctx.traceparent or ""))

    await yard.add("a", count=10)
    await yard.add("b", count=10)
    async with yard.working({"a": asynchronous, "b": threaded}, concurrency=concurrency):
        await yard.all_ended()
    spans = {(span.attributes or {})["jobyard.job.id"]: span for span in traced.spans if span.parent}
    assert len(seen) == len(spans) == 20
    for active, job, given in seen:
        assert (active, given) == (span_id(spans[job]), traceparent(spans[job]))
    assert not trace.get_current_span().get_span_context().is_valid


async def test_a_worker_that_does_not_trace_gives_the_handler_what_the_job_came_with(yard: Yard) -> None:
    def tell(ctx: Context) -> list[Any]:
        return [ctx.traceparent, trace.get_current_span().get_span_context().is_valid]

    jobs = [*await yard.add("t", trace=TRACEPARENT), *await yard.add("t")]
    async with yard.working({"t": tell}):
        told = [(await yard.end_of(job))["result"] for job in jobs]
    assert told == [f'["{TRACEPARENT}",false]', "[null,false]"]


async def test_no_payload_result_or_option_stands_in_a_span(yard: Yard, traced: Traced) -> None:
    """F37. What a handler puts into its own error is its own affair; all the rest is not ours to send."""

    async def give(payload: dict[str, str]) -> str:
        return payload["k"]

    async def fail(payload: dict[str, str]) -> None:
        raise LookupError("not found")

    async def misfit(payload: int) -> None: ...

    about: dict[str, Any] = {"payload": {"k": "secret"}, "tags": '["secret"]', "metadata": '{"k":"secret"}'}
    for type in ("give", "fail", "misfit"):
        await yard.add(type, max_attempts=1, **about)
    async with yard.working({"give": give, "fail": fail, "misfit": misfit}):
        await yard.all_ended()
    assert len(traced.spans) == 6
    sent = "".join(span.to_json() for span in traced.spans)
    assert "not found" in sent
    assert "secret" not in sent
    assert yard.url not in sent
