"""An event loop in a thread of its own, which answers also while the test's own loop waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import uvloop

R = TypeVar("R")

PATIENCE_SECONDS = 60.0
"""Of a call: with less, a busy machine would look like a fault; with none, a frozen database would freeze the test."""


class LoopThread:
    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="jobyard testing", daemon=True)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """What the coroutine answers there. Raises what it raises, and TimeoutError."""
        __tracebackhide__ = True
        return self._begin(coroutine).result()

    async def ask(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """As `call`, from another event loop, which goes on meanwhile."""
        return await asyncio.wrap_future(self._begin(coroutine))

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _begin(self, coroutine: Coroutine[Any, Any, R]) -> Future[R]:
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(coroutine, PATIENCE_SECONDS), self._loop)
