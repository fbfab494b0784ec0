"""What a handler may know of the attempt it runs in, and what it may do beside its work."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Literal, Unpack, get_args
from uuid import UUID

import msgspec

from jobyard.store.dispatch import Claimed
from jobyard.worker.link import Link, LogLine, Progress, Transaction
from jobyard.worker.new_jobs import JobOptions
from jobyard.worker.texts import bounded

MAX_PROGRESS_MESSAGE_BYTES = 1000
MAX_LINE_BYTES = 4096

Level = Literal["debug", "info", "warning", "error"]


class AttemptCancelled(Exception):
    """Raised by `Context.raise_if_cancelled`: this attempt is to end."""


class Context:
    """The attempt that a handler runs in. The properties never change meanwhile, but for `cancelled` and
    `seconds_left`. Of the methods those that are no coroutines may be called from any thread."""

    def __init__(self, claimed: Claimed, link: Link) -> None:
        self._claimed = claimed
        self._link = link

    @property
    def job_id(self) -> UUID:
        return self._claimed.job

    @property
    def type(self) -> str:
        return self._claimed.type

    @property
    def queue(self) -> str:
        return self._claimed.queue

    @property
    def run(self) -> int:
        """1 in the job's first life, one more after each redrive."""
        return self._claimed.run

    @property
    def attempt(self) -> int:
        """1 during the first try of this run."""
        return self._claimed.attempt

    @property
    def max_attempts(self) -> int:
        return self._claimed.max_attempts

    @property
    def timeout_seconds(self) -> float:
        return self._claimed.timeout_seconds

    @property
    def created_at(self) -> datetime:
        return self._claimed.created_at

    @property
    def traceparent(self) -> str | None:
        return self._claimed.trace

    @cached_property
    def tags(self) -> list[str]:
        return msgspec.json.decode(self._claimed.tags, type=list[str]) if self._claimed.tags else []

    @cached_property
    def metadata(self) -> dict[str, str]:
        return (
            msgspec.json.decode(self._claimed.metadata, type=dict[str, str]) if self._claimed.metadata else {}
        )

    # Time and cancellation

    @property
    def seconds_left(self) -> float:
        """Until the time limit of this attempt; below 0 once it is over."""
        return self._link.ends_at - time.monotonic()

    @property
    def deadline(self) -> datetime:
        """When the time limit ends this attempt, by the clock of this machine."""
        return datetime.now(UTC) + timedelta(seconds=self.seconds_left)

    @property
    def cancelled(self) -> bool:
        """Whether this attempt is to end: somebody cancelled the job, its time is over, its lease is lost, or the worker
        stops. An `async def` handler and one in a process are interrupted; one in a thread has to look."""
        return self._link.is_told_to_end()

    def raise_if_cancelled(self) -> None:
        """For handlers in threads, between two steps. Raises AttemptCancelled."""
        if self.cancelled:
            raise AttemptCancelled(f"job {self.job_id} is to end")

    # What it says

    def progress(self, percent: float | None = None, message: str | None = None) -> None:
        """How far it has come, 0 to 100, or in words; shown with the job within a second or so. The latest counts."""
        if percent is not None and not 0 <= percent <= 100:
            raise ValueError(f"percent is from 0 to 100, not {percent!r}")
        text = None if message is None else bounded(str(message), MAX_PROGRESS_MESSAGE_BYTES)
        self._link.tell(Progress(None if percent is None else float(percent), text))

    def log(self, text: str, level: Level = "info") -> None:
        """Write a line onto the job. The first 1,000 of an attempt are kept, of each 4 KiB."""
        if level not in get_args(Level):
            raise ValueError(f"level is one of {', '.join(get_args(Level))}, not {level!r}")
        self._link.tell(LogLine(time.monotonic(), level, bounded(str(text), MAX_LINE_BYTES)))

    # What it does

    async def create(self, type: str, payload: Any = None, **options: Unpack[JobOptions]) -> UUID:
        """Another job; its id. It is committed when this returns, whatever becomes of the attempt: with an
        `idempotency_key` another try of it makes no second one. Raises InvalidJob."""
        return await self._link.create(type, payload, **options)

    def create_from_thread(self, type: str, payload: Any = None, **options: Unpack[JobOptions]) -> UUID:
        """As `create`, for handlers that are no coroutines: it waits for the database."""
        if _in_event_loop():
            raise RuntimeError("this would block the event loop; write `await ctx.create(...)`")
        return self._link.block(self._link.create(type, payload, **options))

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """A transaction on the database of the jobs, whose commit also completes this job:

            async with ctx.transaction() as transaction:
                await transaction.connection.execute("UPDATE account SET ...")
                await transaction.create("receipt", {"order": 17})
                transaction.result = {"paid": True}

        What is done in it happens exactly once: with the job's completion, or not at all. What the handler returns or
        raises after it is not kept. Raises LeaseLost, and takes all back, where the attempt is not this worker's any
        more. For `async def` handlers."""
        return self._link.transaction()


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
