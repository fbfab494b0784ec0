"""What the server says and what it may be asked, as values: JSON names in camelCase, attributes in snake_case."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, TypedDict

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A value with attributes that is also read like a dict, by JSON name: `job.created_at`, `job["createdAt"]`.

    Fields that this version does not know are ignored, so that a newer server can be talked to."""

    def keys(self) -> Iterator[str]:
        return iter(self.__struct_encode_fields__)

    def __getitem__(self, name: str) -> Any:
        if name not in self.__struct_encode_fields__:
            raise KeyError(name)
        return getattr(self, self.__struct_fields__[self.__struct_encode_fields__.index(name)])


class Fault(Record, frozen=True):
    """One thing wrong with a request. `pointer` is a JSON pointer into the body."""

    pointer: str = ""
    detail: str = ""


class Problem(Record, frozen=True):
    """Why the server refused (RFC 9457). `code` is stable; `request_id` finds the request in the server's log."""

    code: str
    title: str = ""
    status: int | None = None
    detail: str | None = None
    errors: list[Fault] = []
    request_id: str | None = None

    def __str__(self) -> str:
        faults = "; ".join(f"{fault.pointer}: {fault.detail}" for fault in self.errors)
        return ": ".join(part for part in (self.code, self.detail or self.title, faults) if part)


class Created(Record, frozen=True):
    """A job that the server has committed. `replayed`: the idempotency key was known and no new job was made."""

    id: str
    status: str
    replayed: bool = False


class Refused(Record, frozen=True):
    """An item of a bulk that did not become a job; the other items are not harmed by it."""

    problem: Problem


class Job(Record, frozen=True):
    """A job as it stands. In lists `payload` and `result` are left out, hence None."""

    id: str
    type: str
    status: str
    queue: str | None = None
    priority: int | None = None
    payload: Any = None
    result: Any = None
    error: Any = None
    reason: str | None = None
    run: int | None = None
    attempt: int | None = None
    max_attempts: int | None = None
    timeout_seconds: float | None = None
    run_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    cancel_requested: bool = False
    progress: Any = None
    dead_letter: bool = False
    tags: list[str] | None = None
    metadata: dict[str, str] | None = None


class Page(Record, frozen=True):
    """Jobs, newest first. `next_page_token` goes into the next `list` with the same filters; None: no more."""

    items: list[Job]
    next_page_token: str | None = None


class Event(Record, frozen=True):
    """One fact about a job, e.g. `job.completed`."""

    id: str
    type: str
    time: datetime
    job_id: str
    data: Any = None


class Attempt(Record, frozen=True):
    """One try. `outcome`: running, completed, failed, or why the job went back to be tried again (retry, crash,
    release, orphan); `retry_at`: when the next try was due."""

    run: int
    attempt: int
    outcome: str
    lease: str | None = None
    worker: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    retry_at: datetime | None = None
    reason: str | None = None
    error: Any = None


class LogLine(Record, frozen=True):
    """A line that an attempt wrote onto its job. `lease` is that of the attempt, `line` counts from 1 within it;
    `level`: debug, info, warning or error."""

    text: str
    level: str
    at: datetime
    lease: str | None = None
    line: int | None = None


class Dealt(Record, frozen=True):
    """How many dead letters were dealt with, or with `dry_run` would be, and which."""

    count: int = 0
    jobs: list[str] = []
    dry_run: bool = False
    next_page_token: str | None = None


class Counts(Record, frozen=True):
    """Jobs in one place, as a maintainer counted them last. `pending` is `ready` and `scheduled` together;
    `oldest_ready_at`: since when the first of the ready ones has been waiting."""

    pending: int = 0
    ready: int = 0
    scheduled: int = 0
    processing: int = 0
    suspects: int = 0
    oldest_ready_at: datetime | None = None


class Pace(Record, frozen=True):
    """How many jobs had which event in the `seconds` before `at`."""

    at: datetime
    seconds: float
    created: int = 0
    started: int = 0
    completed: int = 0
    failed: int = 0
    retry_scheduled: int = 0
    released: int = 0


class WorkerTotals(Record, frozen=True):
    """Worker processes that are alive, what they can run at once, and how many of them wait for work."""

    live: int = 0
    slots: int = 0
    idle: int = 0


class Stats(Record, frozen=True):
    """The whole yard. `sampled_at`: when the jobs were counted; None while no maintainer has."""

    jobs: Counts
    workers: WorkerTotals
    sampled_at: datetime | None = None
    last_minute: Pace | None = None
    history: list[Pace] = []


class QueueType(Counts, frozen=True, kw_only=True):
    """One type in a queue. With `workers` 0 nobody is there to run it."""

    type: str
    workers: int = 0


class Queue(Counts, frozen=True, kw_only=True):
    """A queue that jobs were ever put into."""

    name: str
    types: list[QueueType] = []


class Worker(Record, frozen=True):
    """A worker process. `alive` until `expires_at`, which each heartbeat moves; `in_flight`: the attempts it holds."""

    id: str
    name: str
    alive: bool
    idle: bool = False
    types: list[str] = []
    concurrency: int = 0
    in_flight: int = 0
    started_at: datetime | None = None
    expires_at: datetime | None = None


class Backoff(TypedDict, total=False):
    """Exponential with full jitter, between these two."""

    base_seconds: float
    cap_seconds: float


class JobOptions(TypedDict, total=False):
    """How a job runs. What is left out (or None) is the server's default."""

    queue: str | None
    priority: int | None
    run_at: datetime | str | None
    delay_seconds: float | None
    timeout_seconds: float | None
    max_attempts: int | None
    backoff: Backoff | None
    tags: list[str] | None
    metadata: dict[str, str] | None


class JobFilters(TypedDict, total=False):
    """Which jobs `list` gives; all must hold. `page_size` is 1 to 1,000 (50)."""

    status: str | None
    type: str | None
    queue: str | None
    tag: str | None
    metadata: dict[str, str] | None
    created_after: datetime | str | None
    created_before: datetime | str | None
    page_size: int | None
    page_token: str | None


class DeadLetterFilters(TypedDict, total=False):
    """Which dead letters; all must hold. `reason`: exhausted, non_retryable, timeout or crashed; `failed_after` is
    meant with the moment itself; `error`: text that the error's type, message or traceback holds."""

    type: str | None
    queue: str | None
    reason: str | None
    failed_after: datetime | str | None
    failed_before: datetime | str | None
    error: str | None


class DeadLettersMeant(DeadLetterFilters, total=False):
    """Which dead letters to deal with; all must hold. `jobs`: only these, at most 1,000."""

    jobs: list[str] | None
