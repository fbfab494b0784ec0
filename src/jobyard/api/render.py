"""Rows and records of the store as the wire shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
from msgspec import UNSET, Raw

from jobyard.api.schemas import Attempt, BackoffShown, EventData, Job, JobEvent, JobSummary, LogLine, Progress
from jobyard.domain import events
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
    record = fact.attempt
    if record is None:
        return EventData()
    data = EventData(run=record.run, attempt=record.attempt)
    match fact.type:
        case EventType.STARTED:
            data.worker = UNSET if record.worker is None else str(record.worker)
        case EventType.PROGRESS if record.progress is not None:
            data.percent = UNSET if record.progress.percent is None else record.progress.percent
            data.message = record.progress.message or UNSET
        case EventType.CANCEL_REQUESTED | EventType.PROGRESS:
            pass
        case EventType.REDRIVEN:
            return EventData(run=record.run + 1)
        case _:
            _add_ending(data, fact.type, record)
    return data


def _add_ending(data: EventData, type: EventType, record: AttemptRecord) -> None:
    if type in (EventType.RETRY_SCHEDULED, EventType.RELEASED):
        data.cause = record.outcome
        data.retry_at = UNSET if record.retry_at is None else time_text(record.retry_at)
    data.reason = record.reason or UNSET
    data.error = UNSET if record.error is None else Raw(record.error)


def _raw(text: str | None) -> Raw | None:
    return None if text is None else Raw(text)


def time_or_null(time: datetime | None) -> str | None:
    return None if time is None else time_text(time)


def log_line(row: asyncpg.Record) -> LogLine:
    """From the columns of job_log.sql."""
    return LogLine(str(row["lease"]), row["line"], time_text(row["at"]), row["level"], row["text"])
