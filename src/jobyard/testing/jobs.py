"""A job as a test sees it: as the HTTP API shows it, and with its attempts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar

import asyncpg
import msgspec

from jobyard.api import render
from jobyard.client.shapes import Job as ClientJob
from jobyard.client.shapes import Record

Shape = TypeVar("Shape", bound=Record)


class Attempt(Record, frozen=True):
    """One try. `outcome` is `completed`, `failed`, `retry`, or the way it was taken back."""

    run: int
    attempt: int
    outcome: str
    reason: str | None = None
    error: Any = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    retry_at: datetime | None = None


class Job(ClientJob, frozen=True):
    """A job as it stood when it was looked at; `attempts`, oldest first; `log`, the lines that its attempts wrote."""

    attempts: list[Attempt] = msgspec.field(default_factory=list[Attempt])
    log: list[str] = msgspec.field(default_factory=list[str])

    def __str__(self) -> str:
        return f"{self.type} {self.id} ({self.reason or self.status})"


def job(row: asyncpg.Record, tries: Sequence[asyncpg.Record], lines: Sequence[asyncpg.Record]) -> Job:
    """From the columns of get.sql, those of attempts.sql, newest first, and those of job_log.sql."""
    shown = _as_shown(render.job(row), Job)
    attempts = [_as_shown(render.attempt(render.attempt_record(each)), Attempt) for each in reversed(tries)]
    return msgspec.structs.replace(shown, attempts=attempts, log=[each["text"] for each in lines])


def _as_shown(answer: msgspec.Struct, shape: type[Shape]) -> Shape:
    """Over the wire and back, so that a test sees what a client would."""
    return msgspec.json.decode(msgspec.json.encode(answer), type=shape)
