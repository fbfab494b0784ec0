"""What happened to a job, derived from its rows: nothing is stored for it, so there are no gaps and no delay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class EventType(StrEnum):
    """The names of all events."""

    CREATED = "job.created"
    STARTED = "job.started"
    PROGRESS = "job.progress"
    RETRY_SCHEDULED = "job.retry_scheduled"
    RELEASED = "job.released"
    COMPLETED = "job.completed"
    FAILED = "job.failed"
    CANCEL_REQUESTED = "job.cancel_requested"
    REDRIVEN = "job.redriven"


class AttemptOutcome(StrEnum):
    """How an attempt ended, or that it has not."""

    RUNNING = "running"
    RETRY = "retry"
    CRASH = "crash"
    RELEASE = "release"
    ORPHAN = "orphan"
    COMPLETED = "completed"
    FAILED = "failed"


ENDINGS = {
    AttemptOutcome.RETRY: EventType.RETRY_SCHEDULED,
    AttemptOutcome.CRASH: EventType.RETRY_SCHEDULED,
    AttemptOutcome.RELEASE: EventType.RELEASED,
    AttemptOutcome.ORPHAN: EventType.RELEASED,
    AttemptOutcome.COMPLETED: EventType.COMPLETED,
    AttemptOutcome.FAILED: EventType.FAILED,
}
"""The event that the end of an attempt is; a running one has none yet."""


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt as it stands on record. `retry_at`: when the next try was due; `error`: JSON text."""

    run: int
    attempt: int
    lease: int
    worker: int | None
    started_at: datetime | None
    ended_at: datetime | None
    retry_at: datetime | None
    outcome: AttemptOutcome
    reason: str | None
    error: str | None


@dataclass(frozen=True, slots=True, order=True)
class EventKey:
    """Events of a job in the order in which they happened: by lease, then start before end. Its creation is
    before every lease."""

    lease: int
    is_end: bool


CREATION = EventKey(0, False)


@dataclass(frozen=True, slots=True)
class Event:
    """An immutable fact. `attempt` is what it happened to; None for the job as a whole."""

    key: EventKey
    type: EventType
    time: datetime
    attempt: AttemptRecord | None = None

    @property
    def id(self) -> str:
        """Of the job's events none has the same: `lease.phase`, and `0.created`."""
        return f"{self.key.lease}.{self.type.value.removeprefix('job.')}"


def events_of(created_at: datetime, attempts: Iterable[AttemptRecord]) -> Iterator[Event]:
    """The events of a job, newest first, from its attempts, newest first."""
    for attempt in attempts:
        yield from _events_of_attempt(attempt)
    yield Event(CREATION, EventType.CREATED, created_at)


def _events_of_attempt(attempt: AttemptRecord) -> Iterator[Event]:
    ending = ENDINGS.get(attempt.outcome)
    if ending is not None and attempt.ended_at is not None:
        yield Event(EventKey(attempt.lease, True), ending, attempt.ended_at, attempt)
    if attempt.started_at is not None:
        yield Event(EventKey(attempt.lease, False), EventType.STARTED, attempt.started_at, attempt)
