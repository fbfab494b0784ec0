"""What the span of an attempt says about its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode, Tracer, TracerProvider
from pydantic import BaseModel

from jobyard import Fail, Retry
from jobyard.worker.slots import Ended
from traced import Traced, tracing
from worker.yard import MakeBench, until


@pytest.fixture
def traced() -> Iterator[Traced]:
    with tracing() as traced:
        yield traced


class Mail(BaseModel):
    to: int


def raises() -> None:
    raise LookupError("no such user")


def leaves() -> None:
    raise SystemExit(3)


async def misfits(payload: Mail) -> None: ...


def told(span: ReadableSpan) -> tuple[str, str | None, str | None, bool]:
    """Outcome, reason, type of the error, and whether the span is an error."""
    about: Any = span.attributes or {}
    is_error = span.status.status_code is StatusCode.ERROR
    assert (about.get("error.type") is not None) == is_error
    return about["jobyard.outcome"], about.get("jobyard.reason"), about.get("error.type"), is_error


@pytest.mark.parametrize(
    ("handler", "last", "expected"),
    [
        (lambda: 1, False, ("completed", None, None, False)),
        (raises, False, ("retry", None, "LookupError", True)),
        (raises, True, ("failed", "exhausted", "LookupError", True)),
        (leaves, False, ("retry", None, "SystemExit", True)),
        (lambda: Retry(), False, ("retry", None, None, False)),
        (lambda: Retry(), True, ("failed", "exhausted", "Retry", True)),
        (lambda: Fail("no", "Gone"), False, ("failed", "non_retryable", "Gone", True)),
        (misfits, False, ("failed", "non_retryable", "InvalidPayload", True)),
    ],
    ids=["returned", "raised", "raised last", "left", "asked again", "asked last", "gave up", "misfit"],
)
async def test_every_ending_has_its_words(
    bench: MakeBench,
    traced: Traced,
    handler: Callable[..., Any],
    last: bool,
    expected: tuple[str, str | None, str | None, bool],
) -> None:
    yard = bench(handler)
    await yard.change_of(yard.start(payload='{"to":"secret"}', max_attempts=1 if last else 5))
    assert told(traced.one("process t")) == expected
    assert "secret" not in traced.one("process t").to_json()


class OtherTracer(Tracer):
    """Not the SDK's, though it makes such spans: nobody chooses its ids."""

    def __init__(self, sdk: Tracer) -> None:
        self._sdk = sdk

    def start_span(self, *about: Any, **more: Any) -> trace.Span:
        return self._sdk.start_span(*about, **more)

    def start_as_current_span(self, *about: Any, **more: Any) -> Any:
        return self._sdk.start_as_current_span(*about, **more)


class OtherProvider(TracerProvider):
    def __init__(self, sdk: TracerProvider) -> None:
        self._sdk = sdk

    def get_tracer(self, *about: Any, **more: Any) -> Tracer:
        return OtherTracer(self._sdk.get_tracer(*about, **more))


async def test_a_tracer_whose_ids_nobody_chooses_has_spans_without_links(
    bench: MakeBench, traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", OtherProvider(trace.get_tracer_provider()))
    yard = bench(lambda: 1)
    await yard.change_of(yard.start(attempt=2, previous=7))
    span = traced.one("process t")
    assert told(span) == ("completed", None, None, False)
    assert not span.links


async def test_what_a_handler_raised_is_recorded(bench: MakeBench, traced: Traced) -> None:
    yard = bench(raises)
    await yard.change_of(yard.start())
    [event] = traced.one("process t").events
    about = dict(event.attributes or {})
    assert event.name == "exception"
    assert (about["exception.type"], about["exception.message"]) == ("LookupError", "no such user")
    assert 'raise LookupError("no such user")' in str(about["exception.stacktrace"])


async def test_a_long_message_is_cut(bench: MakeBench, traced: Traced) -> None:
    def raises_much() -> None:
        raise LookupError("x" * 50_000)

    yard = bench(raises_much)
    await yard.change_of(yard.start())
    [event] = traced.one("process t").events
    assert len(str((event.attributes or {})["exception.message"])) == 4096


async def test_a_timeout_ends_the_span_though_the_thread_goes_on(bench: MakeBench, traced: Traced) -> None:
    let_go = threading.Event()
    yard = bench(lambda: let_go.wait(20))
    try:
        await yard.change_of(yard.start(timeout_seconds=0.05))
        assert told(traced.one("process t")) == ("retry", None, "Timeout", True)
    finally:
        let_go.set()
    await until(lambda: not yard.runner.handlers_at_work, "the thread has returned")
    assert len(traced.named("process t")) == 1


@pytest.mark.parametrize(
    ("how", "outcome"), [(Ended.BY_RELEASE, "release"), (Ended.BY_LEASE_LOSS, "lease_lost")]
)
async def test_an_attempt_that_the_worker_ended_is_no_error(
    bench: MakeBench, traced: Traced, how: Ended, outcome: str
) -> None:
    started = asyncio.Event()

    async def hold() -> None:
        started.set()
        await asyncio.sleep(60)

    yard = bench(hold)
    yard.start()
    await started.wait()
    yard.runner.end_all(how)
    await until(lambda: traced.named("process t"), "the span has ended")
    assert told(traced.one("process t")) == (outcome, None, None, False)
