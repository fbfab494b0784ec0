"""One attempt: from a claimed job to the Outcome of its handler. Every way to leave a handler has one."""

from __future__ import annotations

import asyncio
import contextvars
import re
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import partial
from types import TracebackType
from typing import Any

from jobyard.domain.job import MAX_DELAY_SECONDS, MAX_ERROR_MESSAGE_BYTES
from jobyard.domain.lifecycle import Fail, Failed, Outcome, Retry, Succeeded
from jobyard.store.dispatch import Claimed
from jobyard.worker.handlers import Handler
from jobyard.worker.link import Link
from jobyard.worker.texts import bounded, json_text, printed

MAX_ERROR_TYPE_BYTES = 256
MAX_TRACEBACK_BYTES = 16 * 1024

AROUND_THE_HANDLER = ("jobyard.worker.", "jobyard.testing.", "concurrent.futures.")
"""Modules through which a handler is called."""


async def run(
    handler: Handler, claimed: Claimed, link: Callable[[], Link], threads: Executor, max_result_bytes: int
) -> Outcome:
    """Run the handler where its kind runs, in this loop or in a thread, and say how it ended. `link`: made only for a
    handler that asks for its context."""
    if handler.is_async:
        return await awaited(handler, claimed, link, max_result_bytes)
    call = partial(called, handler, claimed, link, max_result_bytes)
    return await asyncio.get_running_loop().run_in_executor(threads, contextvars.copy_context().run, call)


async def awaited(
    handler: Handler, claimed: Claimed, link: Callable[[], Link], max_result_bytes: int
) -> Outcome:
    """An `async def` handler in the loop that runs.

    CancelledError passes through: only the caller knows whether it cancelled the attempt or the handler raised it.
    """
    try:
        arguments = handler.arguments(claimed, link)
        if isinstance(arguments, Fail):
            return arguments
        value = await handler.function(**arguments)
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        # SystemExit and its kin end the attempt, never the worker.
        return Failed(describe(error))
    return outcome_of(value, max_result_bytes)


def called(handler: Handler, claimed: Claimed, link: Callable[[], Link], max_result_bytes: int) -> Outcome:
    """A `def` handler in the thread that calls."""
    try:
        arguments = handler.arguments(claimed, link)
        if isinstance(arguments, Fail):
            return arguments
        value = handler.function(**arguments)
    except BaseException as error:
        return Failed(describe(error))
    return outcome_of(value, max_result_bytes)


def outcome_of(value: Any, max_result_bytes: int) -> Outcome:
    """What a handler's return value means. A result that cannot be kept fails the job for good: the work is done,
    and doing it again would bring the same result."""
    if value is None:
        return Succeeded()
    if isinstance(value, Retry | Fail):
        return _storable(value)
    try:
        return Succeeded(json_text(value, "the result", max_result_bytes))
    except ValueError as trouble:
        return _refused(str(trouble))


def _refused(message: str) -> Fail:
    return Fail(bounded(message, MAX_ERROR_MESSAGE_BYTES), "InvalidResult")


def _storable(value: Retry | Fail) -> Outcome:
    """The handler's own words, which nothing has checked: an exception as a message, or a time that no calendar has,
    must end this job and not the worker."""
    message = bounded(printed(value.message), MAX_ERROR_MESSAGE_BYTES)
    if isinstance(value, Fail):
        return Fail(message, bounded(printed(value.type), MAX_ERROR_TYPE_BYTES))
    after: Any = value.after
    if after is None or (isinstance(after, int | float) and 0 <= after <= MAX_DELAY_SECONDS):
        return Retry(after, message)
    return _refused(f"Retry(after=...) takes seconds from 0 to {MAX_DELAY_SECONDS:g}, not {printed(after)}")


def describe(error: BaseException) -> Mapping[str, Any]:
    """The error as it is kept: type, message and traceback, each bounded and storable as it is."""
    return {
        "type": bounded(type(error).__name__, MAX_ERROR_TYPE_BYTES),
        "message": bounded(printed(error), MAX_ERROR_MESSAGE_BYTES),
        "traceback": bounded(_traceback(error), MAX_TRACEBACK_BYTES),
    }


_LINE = re.compile(r'^  File "(?:.*[/\\\\])?([^"/\\\\]+)", line (\d+)', re.MULTILINE)


def raised_at(error: Mapping[str, Any]) -> str | None:
    """File and line of the innermost frame of an error as it is kept; None where it has none."""
    frames = _LINE.findall(error.get("traceback") or "")
    return ":".join(frames[-1]) if frames else None


def _traceback(error: BaseException) -> str:
    try:
        trace = _from_the_handler_on(error.__traceback__)
        return "".join(traceback.format_exception(type(error), error, trace, limit=-20))
    except Exception as unprintable:  # it runs the error's own code, and parses the source
        return f"(its traceback cannot be printed: {type(unprintable).__name__})"


def _from_the_handler_on(trace: TracebackType | None) -> TracebackType | None:
    """Without the frames that every attempt begins with; whole, where nothing else is in it."""
    begin = trace
    while begin is not None and _is_around_the_handler(begin):
        begin = begin.tb_next
    return begin or trace


def _is_around_the_handler(trace: TracebackType) -> bool:
    return str(trace.tb_frame.f_globals.get("__name__")).startswith(AROUND_THE_HANDLER)
