"""Rows and records of the store as the wire shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
from msgspec import UNSET, Raw, UnsetType

from jobyard.api.schemas import Attempt, BackoffShown, EventData, Job, JobEvent, JobSummary, LogLine, Progress
from jobyard.domain import events
from jobyard.domain.events import AttemptOutcome, AttemptRecord, Event
from jobyard.domain.lifecycle import DEAD_LETTER_REASONS, Reason, Status
from jobyard.domain.times import time_text

T = TypeVar("T")

_STATUSES = {status.value: status for status in Status}
_REASONS = {reason.value: reason for reason in Reason}


def job(row: asyncpg.Record) -> Job:
    """From the columns of get.sql. The client's own bytes are spliced in as they are."""
    return Job(**_shared(row), payload=Raw(row["payload"]), result=_raw(row["result"]))


def job_summary(row: asyncpg.Record) -> JobSummary:
    """From the columns of list.sql."""
    return JobSummary(**_shared(row))


def _shared(row: asyncpg.Record) -> dict[str, Any]:
    reason = _REASONS.get(row["reason"])
    return {
        "id": str(row["id"]),
        "type": row["type"],
        "status": _STATUSES[row["status"]],
        "created_at": time_text(row["created_at"]),
        "updated_at": time_text(_last_change(row)),
        "queue": row["queue"],
        "priority": row["priority"],
        "error": _raw(row["error"]),
        "reason": reason,
        "run": row["run"],
        "attempt": row["attempt"],
        "max_attempts": row["max_attempts"],
        "run_at": time_or_null(row["run_at"]),
        "timeout_seconds": row["timeout_seconds"],
        "backoff": BackoffShown(row["backoff_base"], row["backoff_cap"]),
        "tags": _raw(row["tags"]),
        "metadata": _raw(row["metadata"]),
        "cancel_requested": row["cancel_requested_at"] is not None,
        "progress": _progress(row),
        "dead_letter": reason in DEAD_LETTER_REASONS,
        "traceparent": row["trace"],
    }


def etag(row: asyncpg.Record) -> bytes:
    """These name the job's place, and what was said of it there: nothing else of a job changes."""
    place = f'"{row["run"]}.{row["attempt"]}.{row["status"]}.{_last_change(row).timestamp():.6f}"'
    return place.encode()


def _last_change(row: asyncpg.Record) -> datetime:
    said = (row["cancel_requested_at"], row["progress_at"])
    return max(row["updated_at"], *(at for at in said if at is not None), row["created_at"])


def _progress(row: asyncpg.Record) -> Progress | None:
    if row["progress_at"] is None:
        return None
    return Progress(row["percent"], row["message"], time_text(row["progress_at"]))


def attempt_record(row: asyncpg.Record) -> AttemptRecord:
    """From the columns of attempts.sql."""
    return AttemptRecord(
        run=row["run"],
        attempt=row["attempt"],
        lease=row["lease"],
        worker=row["worker"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        retry_at=row["retry_at"],
        outcome=AttemptOutcome(row["outcome"]),
        reason=row["reason"],
        error=row["error"],
        cancel_requested_at=row["cancel_requested_at"],
        progress=_told(row),
        redriven_at=row["redriven_at"],
    )


def _told(row: asyncpg.Record) -> events.Progress | None:
    at = row["progress_at"]
    return None if at is None else events.Progress(at, row["percent"], row["message"])


def attempt(record: AttemptRecord) -> Attempt:
    return Attempt(
        run=record.run,
        attempt=record.attempt,
        lease=str(record.lease),
        worker=None if record.worker is None else str(record.worker),
        started_at=time_or_null(record.started_at),
        ended_at=time_or_null(record.ended_at),
        retry_at=time_or_null(record.retry_at),
        outcome=record.outcome,
        reason=_REASONS.get(record.reason or ""),
        error=_raw(record.error),
    )


def event(job: UUID, fact: Event) -> JobEvent:
    return JobEvent(fact.id, fact.type, time_text(fact.time), str(job), _event_data(fact))


def _event_data(fact: Event) -> EventData:
    said = fact.data
    return EventData(
        run=_unless_none(said.run),
        attempt=_unless_none(said.attempt),
        worker=UNSET if said.worker is None else str(said.worker),
        percent=_unless_none(said.percent),
        message=_unless_none(said.message),
        cause=_unless_none(said.cause),
        reason=_unless_none(said.reason),
        retry_at=UNSET if said.retry_at is None else time_text(said.retry_at),
        error=UNSET if said.error is None else Raw(said.error),
    )


def _unless_none(value: T | None) -> T | UnsetType:
    return UNSET if value is None else value


def _raw(text: str | None) -> Raw | None:
    return None if text is None else Raw(text)


def time_or_null(time: datetime | None) -> str | None:
    return None if time is None else time_text(time)


def log_line(row: asyncpg.Record) -> LogLine:
    """From the columns of job_log.sql."""
    return LogLine(str(row["lease"]), row["line"], time_text(row["at"]), row["level"], row["text"])
