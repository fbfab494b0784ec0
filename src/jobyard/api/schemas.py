"""What goes over the wire, and its way to and from the domain. JSON names are camelCase."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from jobyard import fields
from jobyard.api.problems import Fault, Problem
from jobyard.domain.job import (
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_PRIORITY,
    DEFAULT_QUEUE,
    DEFAULT_TIMEOUT_SECONDS,
    MAX_BULK_JOBS,
    IdempotencyKey,
    NewJob,
)
from jobyard.domain.lifecycle import Reason, Status
from jobyard.domain.retry import Backoff
from jobyard.fields import (
    Attempts,
    BackoffSeconds,
    Delay,
    Instant,
    Key,
    Metadata,
    Name,
    Priority,
    Tag,
    Tags,
    Timeout,
)

MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 50

AnyJson = Annotated[Raw, Meta(description="Any JSON value, kept byte for byte.")]
Time = Annotated[
    str, Meta(extra_json_schema={"format": "date-time"}, examples=["2026-11-20T10:00:00.000000Z"])
]
Id = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]

PageSize = Annotated[int, Meta(ge=1, le=MAX_PAGE_SIZE)]

DEFAULT_BACKOFF = Backoff()


def _empty_object() -> Raw:
    return Raw(b"{}")


class BackoffOption(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Seconds before the next try: uniform between 0 and min(capSeconds, baseSeconds * 2^(n-1)) after the nth failure."""

    base_seconds: BackoffSeconds = DEFAULT_BACKOFF.base_seconds
    cap_seconds: BackoffSeconds = DEFAULT_BACKOFF.cap_seconds


class CreateJob(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """A job as a client asks for it. `runAt` and `delaySeconds` exclude each other."""

    type: Annotated[Name, Meta(description="What to do: the name of a handler.")]
    payload: AnyJson = msgspec.field(default_factory=_empty_object)
    queue: Annotated[Name, Meta(description="Where it waits.")] = DEFAULT_QUEUE
    priority: Priority = DEFAULT_PRIORITY
    run_at: Annotated[Instant, Meta(description="Not before this. RFC 3339, with a time zone.")] | None = None
    delay_seconds: Delay | None = None
    timeout_seconds: Timeout = DEFAULT_TIMEOUT_SECONDS
    max_attempts: Attempts = DEFAULT_MAX_ATTEMPTS
    backoff: BackoffOption | None = None
    tags: Tags | None = None
    metadata: Metadata | None = None

    def faults(self) -> list[Fault]:
        """What no single field can know."""
        found: list[Fault] = []
        if self.run_at is not None:
            found += instant_faults(self.run_at, "/runAt")
            if self.delay_seconds is not None:
                found.append(Fault("/delaySeconds", "excludes runAt: give one of them"))
        if self.metadata and (trouble := fields.trouble_with_metadata(self.metadata)):
            found.append(Fault("/metadata", trouble))
        return found

    def to_domain(self, id: UUID, idempotency: IdempotencyKey | None, trace: str | None) -> NewJob:
        return NewJob(
            id=id,
            type=self.type,
            payload=bytes(self.payload).decode(),
            queue=self.queue,
            priority=self.priority,
            max_attempts=self.max_attempts,
            timeout_seconds=self.timeout_seconds,
            backoff=DEFAULT_BACKOFF
            if self.backoff is None
            else Backoff(self.backoff.base_seconds, self.backoff.cap_seconds),
            run_at=self.run_at,
            delay_seconds=self.delay_seconds,
            tags=fields.kept(self.tags),
            metadata=fields.kept(self.metadata),
            trace=trace,
            idempotency=idempotency,
        )


class BulkJob(CreateJob, rename="camel", forbid_unknown_fields=True):
    """A job of a bulk, with the key that a single create has in its header."""

    idempotency_key: Key | None = None


class Bulk(msgspec.Struct, forbid_unknown_fields=True):
    """Up to 1,000 jobs; each is accepted or refused on its own."""

    jobs: Annotated[list[BulkJob], Meta(max_length=MAX_BULK_JOBS)]


class BulkEnvelope(msgspec.Struct, forbid_unknown_fields=True):
    """A Bulk before its jobs are looked at."""

    jobs: Annotated[list[Raw], Meta(max_length=MAX_BULK_JOBS)]


class Created(msgspec.Struct):
    """A job that is committed."""

    id: Id
    status: Status = Status.PENDING


class BulkItem(msgspec.Struct, omit_defaults=True):
    """Either `id` and `status`, or `problem`. `replayed`: the idempotency key was known, and no new job was made."""

    id: Id | UnsetType = UNSET
    status: Status | UnsetType = UNSET
    replayed: bool = False
    problem: Problem | UnsetType = UNSET


class BulkAnswer(msgspec.Struct):
    """One item a job, in the order given."""

    items: list[BulkItem]


class BackoffShown(msgspec.Struct, rename="camel"):
    """As asked for, or the default."""

    base_seconds: float
    cap_seconds: float


class Progress(msgspec.Struct, rename="camel"):
    """What the running attempt, or the last one, told of how far it has come."""

    percent: Annotated[float, Meta(ge=0, le=100)] | None
    message: str | None
    at: Time


class JobSummary(msgspec.Struct, rename="camel", kw_only=True):
    """A job as lists show it: without payload and result. `reason` is set with the status `failed`."""

    id: Id
    type: str
    status: Status
    created_at: Time
    updated_at: Time
    queue: str
    priority: int
    error: Annotated[Raw, Meta(description="`{type, message, traceback?}`")] | None
    reason: Reason | None
    run: Annotated[int, Meta(description="1, and one more with each redrive.")]
    attempt: Annotated[int, Meta(description="1 during the first try.")]
    max_attempts: int
    run_at: Annotated[Time, Meta(description="When it may run, while it is pending.")] | None
    timeout_seconds: float
    backoff: BackoffShown
    tags: Annotated[Raw, Meta(description="List of strings.")] | None
    metadata: Annotated[Raw, Meta(description="Object of strings.")] | None
    cancel_requested: Annotated[bool, Meta(description="Somebody wants this run to end.")] = False
    progress: Progress | None = None
    dead_letter: Annotated[bool, Meta(description="It has failed for good, and waits for a person.")] = False
    traceparent: str | None = None


class Job(JobSummary, rename="camel", kw_only=True):
    """A job with all there is to know of it. `reason` is set with the status `failed`."""

    payload: AnyJson
    result: AnyJson | None


class Attempt(msgspec.Struct, rename="camel"):
    """One try. `lease` is its identity, never used again; `retryAt`: when the next try was due."""

    run: int
    attempt: int
    lease: str
    worker: str | None
    started_at: Time | None
    ended_at: Time | None
    retry_at: Time | None
    outcome: str
    reason: str | None
    error: AnyJson | None


class EventData(msgspec.Struct, rename="camel", omit_defaults=True):
    """What belongs to the event's type; the rest is left out."""

    run: int | UnsetType = UNSET
    attempt: int | UnsetType = UNSET
    worker: str | UnsetType = UNSET
    cause: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    percent: float | UnsetType = UNSET
    message: str | UnsetType = UNSET
    retry_at: Time | UnsetType = UNSET
    error: AnyJson | UnsetType = UNSET


class JobEvent(msgspec.Struct, rename="camel"):
    """An immutable fact about a job."""

    id: str
    type: str
    time: Time
    job_id: Id
    data: EventData


class LogLine(msgspec.Struct, rename="camel"):
    """A line that an attempt wrote onto its job. `line` counts from 1 within the attempt."""

    lease: str
    line: int
    at: Time
    level: str
    text: str


class LogPage(msgspec.Struct, rename="camel"):
    """Oldest first."""

    items: list[LogLine]
    next_page_token: str | None


class JobPage(msgspec.Struct, rename="camel"):
    """Newest first. `nextPageToken` leads on, with the same filters; null: this was the last page."""

    items: list[JobSummary]
    next_page_token: str | None


class AttemptPage(msgspec.Struct, rename="camel"):
    """Newest first."""

    items: list[Attempt]
    next_page_token: str | None


class EventPage(msgspec.Struct, rename="camel"):
    """Newest first."""

    items: list[JobEvent]
    next_page_token: str | None


class ListQuery(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Which jobs to list; all filters must hold. `metadata.K=V` asks for a pair of the metadata."""

    status: Status | None = None
    type: Name | None = None
    queue: Name | None = None
    tag: Tag | None = None
    metadata: dict[str, str] | None = None
    created_after: Annotated[Instant, Meta(description="At or after.")] | None = None
    created_before: Annotated[Instant, Meta(description="Before.")] | None = None
    page_size: PageSize = DEFAULT_PAGE_SIZE
    page_token: str | None = None

    def faults(self) -> list[Fault]:
        return period_faults("/created", self.created_after, self.created_before)


class PageQuery(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Which page of a list."""

    page_size: PageSize = DEFAULT_PAGE_SIZE
    page_token: str | None = None

    def faults(self) -> list[Fault]:
        return []


def period_faults(pointer: str, after: datetime | None, before: datetime | None) -> list[Fault]:
    """`pointer`: as of both its ends, without After and Before."""
    return [
        *(instant_faults(after, f"{pointer}After") if after else ()),
        *(instant_faults(before, f"{pointer}Before") if before else ()),
    ]


def instant_faults(instant: datetime, pointer: str) -> list[Fault]:
    trouble = fields.trouble_with_instant(instant)
    return [] if trouble is None else [Fault(pointer, trouble)]
