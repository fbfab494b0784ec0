"""Rows and records of the store as the wire shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
from msgspec import UNSET, Raw

from jobyard.api.schemas import Attempt, BackoffShown, EventData, Job, JobEvent, JobSummary
from jobyard.domain.events import AttemptOutcome, AttemptRecord, Event, EventType
from jobyard.domain.lifecycle import DEAD_LETTER_REASONS, Reason, Status

_STATUSES = {status.value: status for status in Status}
_REASONS = {reason.value: reason for reason in Reason}


def time_text(time: datetime) -> str:
    """RFC 3339 with 6 decimals and `Z`. Times come from the database in UTC."""
    return time.isoformat(timespec="microseconds")[:-6] + "Z"


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
        "updated_at": time_text(row["updated_at"]),
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
        "dead_letter": reason in DEAD_LETTER_REASONS,
        "traceparent": row["trace"],
    }


def etag(row: asyncpg.Record) -> bytes:
    """A job never changes without its place: these name the place."""
    place = f'"{row["run"]}.{row["attempt"]}.{row["status"]}.{row["updated_at"].timestamp():.6f}"'
    return place.encode()


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
    )


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
    record = fact.attempt
    if record is None:
        return EventData()
    data = EventData(run=record.run, attempt=record.attempt)
    if fact.type is EventType.STARTED:
        data.worker = UNSET if record.worker is None else str(record.worker)
        return data
    if fact.type in (EventType.RETRY_SCHEDULED, EventType.RELEASED):
        data.cause = record.outcome
        data.retry_at = UNSET if record.retry_at is None else time_text(record.retry_at)
    data.reason = record.reason or UNSET
    data.error = UNSET if record.error is None else Raw(record.error)
    return data


def _raw(text: str | None) -> Raw | None:
    return None if text is None else Raw(text)


def time_or_null(time: datetime | None) -> str | None:
    return None if time is None else time_text(time)
