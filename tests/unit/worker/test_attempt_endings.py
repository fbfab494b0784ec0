"""Every way to leave a handler has a defined outcome, and the slot comes back."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from jobyard import Fail, Retry
from jobyard.domain.job import MAX_ERROR_MESSAGE_BYTES
from jobyard.domain.lifecycle import Cause, Change, Status
from jobyard.worker.attempt import MAX_TRACEBACK_BYTES
from jobyard.worker.slots import Ended
from worker.yard import MakeBench


class Rude(BaseException):
    """Derives from what nobody catches."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


class Refusing(msgspec.Struct):
    """A payload whose own check raises what no validator raises."""

    n: int = 0

    def __post_init__(self) -> None:
        raise KeyError("out of range")


class Order(msgspec.Struct):
    missing: int


def asynchronous(function: Callable[[], Any]) -> Callable[..., Any]:
    async def handle() -> Any:
        await asyncio.sleep(0)
        return function()

    return handle


def synchronous(function: Callable[[], Any]) -> Callable[..., Any]:
    def handle() -> Any:
        return function()

    return handle


both_kinds = pytest.mark.parametrize("kind", [asynchronous, synchronous])


def raising(error: BaseException) -> Callable[[], Any]:
    def leave() -> Any:
        raise error

    return leave


async def ending_of(bench: MakeBench, handler: Callable[..., Any], **columns: Any) -> Change:
    """How the one attempt ended; its slot is free again."""
    runner = bench(handler)
    change = await runner.change_of(runner.start(**columns))
    assert not runner.runner.slots.running
    assert len(runner.endings) == 1
    return change


@both_kinds
@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        SystemExit(0),
        KeyboardInterrupt(),
        asyncio.CancelledError(),
        GeneratorExit(),
        Rude(),
        StopIteration(5),
        StopAsyncIteration(),
        TimeoutError(),
        asyncio.InvalidStateError(),
        MemoryError(),
        BaseExceptionGroup("many", [SystemExit(0)]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_is_raised_fails_the_attempt_with_its_type(
    bench: MakeBench, kind: Callable[..., Any], error: BaseException
) -> None:
    change = await ending_of(bench, kind(raising(error)))
    assert (change.status, change.cause) == (Status.PENDING, Cause.RETRY)
    # A coroutine cannot raise StopIteration: Python itself makes it a RuntimeError.
    swapped = isinstance(error, StopIteration) and kind is asynchronous
    assert change.error is not None
    assert change.error["type"] == ("RuntimeError" if swapped else type(error).__name__)
    assert type(error).__name__ in change.error["traceback"]


async def test_a_handler_that_cancels_its_own_task_has_failed(bench: MakeBench) -> None:
    async def suicide() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(60)

    change = await ending_of(bench, suicide)
    assert (change.cause, change.error and change.error["type"]) == (Cause.RETRY, "CancelledError")


async def test_a_payload_whose_own_check_raises_anything_ends_the_attempt(bench: MakeBench) -> None:
    async def handle(payload: Refusing) -> None: ...

    change = await ending_of(bench, handle)
    assert change.error is not None
    assert change.error["type"] == "KeyError"


def circular() -> Any:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def half_made() -> Any:
    whole = Order(5)
    del whole.missing
    return whole


@both_kinds
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (threading.Lock, "lock"),
        (circular, "recursion depth"),
        (lambda: "x" * 5_000_000, "5000002 bytes"),
        (lambda: float("nan"), "NaN"),
        (lambda: {"a": [1, float("inf")]}, "NaN or Infinity"),
        (lambda: "\ud800", "surrogates"),
        (lambda: 1j, "complex"),
        (lambda: (n for n in ()), "generator"),
        (half_made, "missing"),
    ],
)
async def test_a_result_that_cannot_be_kept_fails_the_job_for_good(
    bench: MakeBench, kind: Callable[..., Any], make: Callable[[], Any], says: str
) -> None:
    change = await ending_of(bench, kind(make))
    assert (change.status, change.cause) == (Status.FAILED, Cause.NON_RETRYABLE)
    assert change.error is not None
    assert change.error["type"] == "InvalidResult"
    assert says in change.error["message"]
    assert len(change.error["message"]) < 1000


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ({3}, [3]),
        (b"\x00\xff", "AP8="),
        (None, None),
        (False, False),
        (0, 0),
        ("null", "null"),
        ([None, {"a": None}], [None, {"a": None}]),
        ((1, 2.5), [1, 2.5]),
        (2**70, 2**70),
        ("\0é🙂", "\0é🙂"),
    ],
)
async def test_a_result_that_json_can_hold_is_kept(bench: MakeBench, value: Any, kept: Any) -> None:
    change = await ending_of(bench, asynchronous(lambda: value))
    assert change.status is Status.COMPLETED
    assert (None if change.result is None else json.loads(change.result)) == kept


async def test_a_function_that_makes_a_coroutine_without_awaiting_it_is_no_success(bench: MakeBench) -> None:
    closed: list[Any] = []

    def forgot() -> Any:
        async def work() -> None: ...

        closed.append(work())
        return closed[0]

    change = await ending_of(bench, forgot)
    closed[0].close()
    assert change.error is not None
    assert "coroutine" in change.error["message"]


@both_kinds
async def test_a_handler_may_ask_for_a_retry_or_give_up(bench: MakeBench, kind: Callable[..., Any]) -> None:
    retry = await ending_of(bench, kind(lambda: Retry(after=7, message="later")))
    assert (retry.cause, retry.run_in, retry.error) == (Cause.RETRY, 7, {"type": "Retry", "message": "later"})
    fail = await ending_of(bench, kind(lambda: Fail("never", "NoSuchUser")))
    assert (fail.cause, fail.error) == (Cause.NON_RETRYABLE, {"type": "NoSuchUser", "message": "never"})
    last = await ending_of(bench, kind(Retry), attempt=5)
    assert last.cause is Cause.EXHAUSTED


@pytest.mark.parametrize(
    "after", ["5", timedelta(seconds=5), float("nan"), float("inf"), -1, 1e300, [5]], ids=repr
)
async def test_a_retry_at_a_time_that_cannot_be_fails_the_job_and_nothing_else(
    bench: MakeBench, after: Any
) -> None:
    change = await ending_of(bench, asynchronous(lambda: Retry(after=after)))
    assert (change.status, change.cause) == (Status.FAILED, Cause.NON_RETRYABLE)
    assert change.error is not None
    assert change.error["type"] == "InvalidResult"


@pytest.mark.parametrize(
    "make", [lambda text: Fail(text), lambda text: Retry(message=text), lambda text: Fail("m", text)]
)
@pytest.mark.parametrize(
    "text", [ValueError("why"), None, 5, "x" * 10_000_000, "\0", "a\ud800b"], ids=lambda t: repr(t)[:20]
)
async def test_what_a_handler_says_in_such_a_value_can_always_be_stored(
    bench: MakeBench, make: Callable[[Any], Any], text: Any
) -> None:
    change = await ending_of(bench, asynchronous(lambda: make(text)))
    stored = json.dumps(change.error, ensure_ascii=False).encode()
    assert len(stored) <= MAX_ERROR_MESSAGE_BYTES + 1000
    assert b"\\u0000" not in stored


@both_kinds
async def test_an_error_is_kept_bounded_and_storable(bench: MakeBench, kind: Callable[..., Any]) -> None:
    change = await ending_of(bench, kind(raising(ValueError("begin\0\ud800" + "é" * 200_000 + "end"))))
    assert change.error is not None
    message, trace = change.error["message"], change.error["traceback"]
    assert message.startswith("begin\N{REPLACEMENT CHARACTER}?")
    assert message.endswith("end")
    assert len(message.encode()) <= MAX_ERROR_MESSAGE_BYTES
    assert trace.startswith("Traceback")
    assert len(trace.encode()) <= MAX_TRACEBACK_BYTES
    assert "\0" not in json.dumps(change.error, ensure_ascii=False)


@both_kinds
async def test_the_traceback_begins_at_the_handler(bench: MakeBench, kind: Callable[..., Any]) -> None:
    change = await ending_of(bench, kind(raising(ValueError("x"))))
    assert change.error is not None
    _, first, *_ = change.error["traceback"].splitlines()
    assert first.startswith(f'  File "{__file__}"')
    assert first.endswith("in handle")


async def test_a_traceback_that_no_handler_is_in_stays_whole(bench: MakeBench) -> None:
    async def handle(unexpected: object) -> None: ...

    handle.__dict__["__signature__"] = inspect.Signature()
    change = await ending_of(bench, handle)
    assert change.error is not None
    assert change.error["traceback"].startswith("Traceback")
    assert "missing 1 required positional argument" in change.error["traceback"]


@both_kinds
async def test_an_error_that_cannot_be_printed_is_kept_all_the_same(
    bench: MakeBench, kind: Callable[..., Any]
) -> None:
    change = await ending_of(bench, kind(raising(Unprintable())))
    assert change.error is not None
    assert change.error["type"] == "Unprintable"
    assert "cannot be printed: RuntimeError" in change.error["message"]


async def test_the_end_of_a_deep_recursion_is_kept(bench: MakeBench) -> None:
    def deep() -> Any:
        return deep()

    change = await ending_of(bench, asynchronous(deep))
    assert change.error is not None
    assert change.error["type"] == "RecursionError"
    assert len(change.error["traceback"].encode()) <= MAX_TRACEBACK_BYTES


@pytest.mark.parametrize("ended", [Ended.BY_LEASE_LOSS, Ended.BY_RELEASE])
@both_kinds
async def test_an_attempt_that_is_ended_before_its_first_step_gives_its_slot_back(
    bench: MakeBench, kind: Callable[..., Any], ended: Ended
) -> None:
    calls: list[int] = []
    runner = bench(kind(lambda: calls.append(1)))
    runner.start()
    runner.runner.end_all(ended)
    assert await runner.runner.all_over(2)
    assert calls == []
    assert [ending.change.cause for ending in runner.endings] == (
        [Cause.RELEASE] if ended is Ended.BY_RELEASE else []
    )


async def test_the_context_variables_of_one_job_never_show_in_the_next(bench: MakeBench) -> None:
    secret = contextvars.ContextVar("secret", default="none")
    seen: list[str] = []

    async def look() -> None:
        seen.append(secret.get())
        secret.set("of another job")
        await asyncio.sleep(0)

    def look_in_a_thread() -> None:
        seen.append(secret.get())
        secret.set("of another job")

    for function in (look, look_in_a_thread):
        runner = bench(function, 1)
        for _ in range(3):
            await runner.change_of(runner.start())
    assert seen == ["none"] * 6
    assert secret.get() == "none"


async def test_what_ended_is_forgotten_long_before_its_time_limit(bench: MakeBench) -> None:
    import gc

    from jobyard.worker.slots import Running

    async def quick() -> None: ...

    runner = bench(quick, 8)
    kept_by_a_long_one = bench(lambda: None)
    for lease in range(3000):
        runner.start(lease=lease, timeout_seconds=3600.0 + lease)
        if lease % 8 == 7:
            assert await runner.runner.all_over(5)
    assert kept_by_a_long_one
    gc.collect()
    assert len(runner.endings) == 3000
    assert sum(isinstance(thing, Running) for thing in gc.get_objects()) < 100


async def test_a_cancelled_handler_may_clean_up_and_its_attempt_still_timed_out(bench: MakeBench) -> None:
    cleaned: list[str] = []

    async def tidy() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            cleaned.append("up")
        return "a result that comes too late"

    change = await ending_of(bench, tidy, timeout_seconds=0.05)
    assert cleaned == ["up"]
    assert (change.cause, change.error and change.error["type"]) == (Cause.RETRY, "Timeout")
    last = await ending_of(bench, tidy, timeout_seconds=0.05, attempt=5)
    assert (last.status, last.cause) == (Status.FAILED, Cause.TIMEOUT)


async def test_a_handler_that_swallows_its_cancellation_loses_its_slot(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobyard.worker.runner.CANCEL_PATIENCE_SECONDS", 0.05)
    let_go = asyncio.Event()

    async def stubborn() -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    runner = bench(stubborn, 1)
    first = runner.start(lease=1, timeout_seconds=0.05)
    runner.start(lease=2, timeout_seconds=60.0)
    assert (await runner.change_of(first)).error == {
        "type": "Timeout",
        "message": "the attempt ran longer than 0.05 s",
    }
    assert list(runner.runner.slots.running) == [2]
    assert runner.runner.handlers_at_work
    let_go.set()
    assert await runner.runner.all_over(5)
    assert [ending.lease for ending in runner.endings] == [1, 2]


async def test_a_thread_past_its_time_gives_its_slot_to_the_next(bench: MakeBench) -> None:
    let_go = threading.Event()
    calls: list[int] = []

    def block_once() -> None:
        calls.append(1)
        if len(calls) == 1:
            let_go.wait(20)

    runner = bench(block_once, 1)
    first = runner.start(lease=1, timeout_seconds=0.05)
    second = runner.start(lease=2)
    try:
        assert (await runner.change_of(second)).status is Status.COMPLETED
        assert (await runner.change_of(first)).cause is Cause.RETRY
        assert runner.runner.stuck_threads == 1
    finally:
        let_go.set()
