"""What happened to a job, derived from its rows: nothing is stored for it, so there are no gaps and no delay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum


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
class Progress:
    """What an attempt last told of how far it has come. `percent`: 0 to 100."""

    at: datetime
    percent: float | None
    message: str | None


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt as it stands on record, or, without a start, the end of a run that no attempt brought about.
    `retry_at`: when the next try was due; `error`: JSON text."""

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
    cancel_requested_at: datetime | None = None
    progress: Progress | None = None
    redriven_at: datetime | None = None


class Phase(IntEnum):
    """What happens to an attempt, in this order."""

    START = 0
    CANCEL_REQUEST = 1
    PROGRESS = 2
    END = 3
    REDRIVE = 4


@dataclass(frozen=True, slots=True, order=True)
class EventKey:
    """Events of a job in the order in which they happened: by lease, then by phase. Its creation is before every
    lease."""

    lease: int
    phase: Phase


CREATION = EventKey(0, Phase.START)


@dataclass(frozen=True, slots=True)
class EventData:
    """What an event says beside its type and time; None is not said. `error`: JSON text."""

    run: int | None = None
    attempt: int | None = None
    worker: int | None = None
    percent: float | None = None
    message: str | None = None
    cause: str | None = None
    reason: str | None = None
    retry_at: datetime | None = None
    error: str | None = None


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

    @property
    def data(self) -> EventData:
        record = self.attempt
        if record is None:
            return EventData()
        run, attempt = record.run, record.attempt
        match self.type:
            case EventType.STARTED:
                return EventData(run, attempt, worker=record.worker)
            case EventType.PROGRESS if record.progress is not None:
                return EventData(
                    run, attempt, percent=record.progress.percent, message=record.progress.message or None
                )
            case EventType.CANCEL_REQUESTED | EventType.PROGRESS:
                return EventData(run, attempt)
            case EventType.REDRIVEN:
                return EventData(run + 1)
            case EventType.RETRY_SCHEDULED | EventType.RELEASED:
                return EventData(
                    run, attempt, cause=record.outcome.value, retry_at=record.retry_at, error=record.error
                )
            case _:
                return EventData(run, attempt, reason=record.reason, error=record.error)


def events_of(created_at: datetime, attempts: Iterable[AttemptRecord]) -> Iterator[Event]:
    """The events of a job, newest first, from its attempts, newest first."""
    for attempt in attempts:
        yield from _events_of_attempt(attempt)
    yield Event(CREATION, EventType.CREATED, created_at)


def _events_of_attempt(attempt: AttemptRecord) -> Iterator[Event]:
    """Newest first."""
    told = attempt.progress
    found = (
        (Phase.REDRIVE, EventType.REDRIVEN, attempt.redriven_at),
        (Phase.END, ENDINGS.get(attempt.outcome), attempt.ended_at),
        (Phase.PROGRESS, EventType.PROGRESS, told and told.at),
        (Phase.CANCEL_REQUEST, EventType.CANCEL_REQUESTED, attempt.cancel_requested_at),
        (Phase.START, EventType.STARTED, attempt.started_at),
    )
    for phase, event, time in found:
        if event is not None and time is not None:
            yield Event(EventKey(attempt.lease, phase), event, time, attempt)
