"""What every process of Jobyard shares: start, signals, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

OK, FAILED = 0, 1
GARBAGE_THRESHOLD = 50_000
SUPERVISED = "JOBYARD_SUPERVISED"
"""Set by `jobyard dev` for its processes: they end when their standard input closes, so none outlives it."""


class StartError(Exception):
    """A process that cannot start, or go on: one sentence, with what to do."""


def run_process(start: Callable[[asyncio.Event], Coroutine[Any, Any, int]]) -> int:
    """Run the coroutine with a stop event that SIGTERM and SIGINT set; a second signal ends the process at once.
    Answers its exit code."""
    _collect_garbage_rarely()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_with_signals(start))
    except StartError as error:
        sys.stderr.write(f"jobyard: {error}\n")
        return FAILED


def _collect_garbage_rarely() -> None:
    """What was imported lives for ever, and requests and attempts leave little cyclic garbage: collecting as often as
    Python does by itself cost a third of a worker's time a job."""
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 20)


async def _with_signals(start: Callable[[asyncio.Event], Coroutine[Any, Any, int]]) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(128 + signal.SIGTERM)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    if os.environ.get(SUPERVISED):
        _stop_with_supervisor(loop, stop)
    return await start(stop)


def _stop_with_supervisor(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    def wait_for_end_of_input() -> None:
        # Unbuffered: a thread that holds the buffer's lock would break the interpreter's end.
        while os.read(sys.stdin.fileno(), 1024):
            pass
        # The loop is closed where a signal came as well and all is nearly over.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=wait_for_end_of_input, name="supervisor watch", daemon=True).start()


async def until_stopped(
    running: Coroutine[Any, Any, None], stop: Callable[[], None], told: asyncio.Event
) -> None:
    task = asyncio.create_task(running)
    waiting = asyncio.create_task(told.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not task.done():
        stop()
    await task
