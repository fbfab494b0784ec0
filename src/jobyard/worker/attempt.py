"""One attempt: from a claimed job to the Outcome of its handler. Every way to leave a handler has one."""

from __future__ import annotations

import asyncio
import contextvars
import math
import traceback
from collections.abc import Mapping
from concurrent.futures import Executor
from functools import partial
from typing import Any, cast

import msgspec

from jobyard.domain.job import MAX_ERROR_MESSAGE_BYTES
from jobyard.domain.lifecycle import Fail, Failed, Outcome, Retry, Succeeded
from jobyard.store.dispatch import Claimed
from jobyard.worker.handlers import Handler

MAX_TRACEBACK_BYTES = 16 * 1024

_encode = msgspec.json.Encoder().encode


async def run(handler: Handler, claimed: Claimed, threads: Executor, max_result_bytes: int) -> Outcome:
    """Call the handler and say how it ended.

    CancelledError passes through: only the caller knows whether it cancelled the attempt or the handler raised it.
    """
    arguments = handler.arguments(claimed)
    if isinstance(arguments, Fail):
        return arguments
    payload, context = arguments
    try:
        if handler.is_async:
            value = await handler.function(*payload, **context)
        else:
            call = partial(contextvars.copy_context().run, handler.function, *payload, **context)
            value = await asyncio.get_running_loop().run_in_executor(threads, _in_thread, call)
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        # SystemExit and its kin end the attempt, never the worker.
        return Failed(describe(error))
    return outcome_of(value, max_result_bytes)


class LeftThread(Exception):
    """Carries what a future cannot: SystemExit, StopIteration and other endings of a function in a thread."""


def _in_thread(call: partial[Any]) -> Any:
    try:
        return call()
    except Exception as error:
        if isinstance(error, StopIteration):
            raise LeftThread from error
        raise
    except BaseException as error:
        raise LeftThread from error


def outcome_of(value: Any, max_result_bytes: int) -> Outcome:
    """What a handler's return value means. A result that cannot be kept fails the job for good: the work is done,
    and doing it again would bring the same result."""
    if value is None:
        return Succeeded()
    if isinstance(value, Retry | Fail):
        return value
    try:
        text = _encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return Fail(f"the result cannot be kept as JSON: {error or type(error).__name__}", "InvalidResult")
    if len(text) > max_result_bytes:
        return Fail(
            f"the result is {len(text)} bytes long; at most {max_result_bytes} are kept", "InvalidResult"
        )
    if b"null" in text and _holds_non_finite(value):
        return Fail("the result cannot be kept as JSON: it holds NaN or Infinity", "InvalidResult")
    return Succeeded(text.decode())


def _holds_non_finite(value: Any) -> bool:
    """The encoder writes NaN as null, which would be another value than the handler returned."""
    left: list[Any] = [msgspec.to_builtins(value)]
    while left:
        item = left.pop()
        if isinstance(item, float) and not math.isfinite(item):
            return True
        if isinstance(item, dict):
            left.extend(cast("dict[str, Any]", item).values())
        elif isinstance(item, list | tuple):
            left.extend(cast("list[Any]", item))
    return False


def describe(error: BaseException) -> Mapping[str, Any]:
    """The error as it is kept: type, message and traceback, each bounded and storable as it is."""
    if isinstance(error, LeftThread) and error.__cause__ is not None:
        error = error.__cause__
    return {
        "type": type(error).__name__,
        "message": _bounded(_message(error), MAX_ERROR_MESSAGE_BYTES),
        "traceback": _bounded("".join(traceback.format_exception(error, limit=-20)), MAX_TRACEBACK_BYTES),
    }


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as unprintable:
        return f"(its message cannot be printed: {type(unprintable).__name__})"


def _bounded(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8, keeping both ends; no NUL and no lone surrogate, which could not be stored."""
    clean = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace")
    if len(clean) > limit:
        half = limit // 2 - 8
        clean = clean[:half] + b"\n[...]\n" + clean[-half:]
    return clean.decode(errors="ignore")
