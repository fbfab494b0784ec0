"""`Client`: the HTTP contract as Python calls."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Self, TypeVar, Unpack
from urllib.parse import quote

import httpx
import msgspec

from jobyard.client.bulk import Outcome, create_each
from jobyard.client.dead_letters import deal, together
from jobyard.client.errors import ApiError, NotJobyard
from jobyard.client.shapes import (
    Attempt,
    Created,
    DeadLetterFilters,
    DeadLettersMeant,
    Dealt,
    Event,
    Job,
    JobFilters,
    JobOptions,
    LogLine,
    Page,
    Queue,
    Stats,
    Worker,
)
from jobyard.client.stream import Stream
from jobyard.client.tracing import active_traceparent
from jobyard.client.transport import (
    ANSWER_SECONDS,
    NOT_MODIFIED,
    OnRecovery,
    OnRetry,
    Transport,
    is_header_text,
)
from jobyard.client.wire import camel_case, encode

T = TypeVar("T")
# Named here because inside the class `list` is the call.
Outcomes = list[Outcome]

FINAL_STATUSES = ("completed", "failed")
LONGEST_WAIT_SECONDS = 60
EARLY_ANSWER_PAUSE_SECONDS = 0.2
WATCH_SECONDS = 1
"""How long a server may keep a watcher whose job is not final: a change on the way there is seen no later."""
NO_PARAMETERS: Mapping[str, str] = {}


class _Status(msgspec.Struct):
    status: str


class _Rows(msgspec.Struct, rename="camel"):
    items: list[msgspec.Raw]
    next_page_token: str | None = None


class Client:
    """A Jobyard server, over HTTP.

    Reads, and creates whose every job carries an idempotency key, are tried again for `retry_seconds` while the
    server is away or asks for patience (`Retry-After`); anything else is sent once. `on_retry` hears of each
    failure that will be tried again, and the pause in seconds; `on_recovery` of the answer after failures. An answer
    is awaited for `timeout` seconds, plus what a call says with `wait`. Where an id is asked for, the job itself will do. Raises ValueError for an address or a key that cannot be; calls raise ClientError. Not
    safe to share between threads.
    """

    def __init__(
        self,
        url: str = "http://localhost:3000",
        key: str | None = None,
        *,
        retry_seconds: float = 30.0,
        on_retry: OnRetry | None = None,
        on_recovery: OnRecovery | None = None,
        timeout: float = ANSWER_SECONDS,
    ) -> None:
        self._transport = Transport(url, key, retry_seconds, on_retry, on_recovery, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    def create(
        self,
        type: str,
        payload: Any,
        *,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Created:
        """One job, committed when this returns. With an idempotency key (1 to 255 printable ASCII characters, kept
        24 h) the same call made twice makes one job. `traceparent`: the W3C trace context that the job belongs to;
        left out, that of the OpenTelemetry span which is active here. Raises ValueError for values that JSON cannot say.
        """
        response = self._transport.send(
            "POST",
            "/api/jobs",
            repeatable=idempotency_key is not None,
            content=encode({"type": type, "payload": payload, **camel_case(options)}),
            headers=_json_headers(idempotency_key, traceparent),
        )
        created = self._transport.read(response, Created)
        return msgspec.structs.replace(
            created, replayed=response.headers.get("Idempotency-Replayed") == "true"
        )

    def create_many(self, jobs: Iterable[Mapping[str, Any]], *, traceparent: str | None = None) -> Outcomes:
        """Many jobs; the outcomes in the order given. See `create_each`."""
        return list(self.create_each(jobs, traceparent=traceparent))

    def create_each(
        self, jobs: Iterable[Mapping[str, Any]], *, traceparent: str | None = None
    ) -> Iterator[Outcome]:
        """Many jobs, streamed: takes as many as fill a request (1,000 jobs, 16 MiB), sends it, gives the outcomes
        in order, and goes on. A job is a whole body as the API takes it, e.g. `{"type": "email", "payload": {},
        "maxAttempts": 3, "idempotencyKey": "order-17"}`. `traceparent` as in `create`, for all of them."""
        yield from create_each(self._transport, jobs, _json_headers(None, traceparent))

    def get(self, job_id: str | Created | Job, wait: float | None = None) -> Job:
        """A job; with `wait`, as soon as it is completed or failed, or as it is after that many seconds."""
        return self._transport.read(self._job(job_id, wait), Job)

    def get_json(self, job_id: str | Created | Job, wait: float | None = None) -> bytes:
        """Like `get`, as the server wrote it: the payload byte for byte, and fields this version does not know."""
        return self._job(job_id, wait).content

    def cancel(self, job_id: str | Created | Job) -> Job:
        """End a job that waits, or ask its running attempt to end; the job as it then is. Raises ApiError
        (`wrong_state`) for a job that is over."""
        return self._transport.decode(self.cancel_json(job_id), Job)

    def cancel_json(self, job_id: str | Created | Job) -> bytes:
        """Like `cancel`, as the server wrote it."""
        return self._transport.send("POST", f"{_job_path(job_id)}/cancel", repeatable=False).content

    def retry(self, job_id: str | Created | Job) -> Job:
        """Start the next run of a failed job; the job as it then is. Raises ApiError (`wrong_state`) for any other."""
        return self._transport.decode(self.retry_json(job_id), Job)

    def retry_json(self, job_id: str | Created | Job) -> bytes:
        """Like `retry`, as the server wrote it."""
        return self._transport.send("POST", f"{_job_path(job_id)}/retry", repeatable=False).content

    def watch(self, job_id: str | Created | Job) -> Stream[Job]:
        """The job as it is, and again after each change, until it is completed or failed."""
        path = _job_path(job_id)
        return self._stream(lambda: self._changes(path), Job)

    def attempts(self, job_id: str | Created | Job) -> Stream[Attempt]:
        """The attempts of a job, newest first, those of earlier runs included."""
        path = _job_path(job_id)
        return self._stream(lambda: self._items(f"{path}/attempts"), Attempt)

    def events(self, job_id: str | Created | Job) -> Stream[Event]:
        """What happened to a job, newest first."""
        path = _job_path(job_id)
        return self._stream(lambda: self._items(f"{path}/events"), Event)

    def log(self, job_id: str | Created | Job) -> Stream[LogLine]:
        """The lines that the attempts of a job wrote, oldest first."""
        path = _job_path(job_id)
        return self._stream(lambda: self._items(f"{path}/log"), LogLine)

    def list(self, **filters: Unpack[JobFilters]) -> Page:
        """One page of jobs, newest first."""
        response = self._transport.send("GET", "/api/jobs", repeatable=True, params=_query(filters))
        return self._transport.read(response, Page)

    def list_each(self, **filters: Unpack[JobFilters]) -> Stream[Job]:
        """All jobs that fit, newest first; a page is fetched when the one before it is used up."""
        return self._stream(lambda: self._items("/api/jobs", _query(filters)), Job)

    def dead_letters(
        self, *, page_size: int | None = None, **filters: Unpack[DeadLetterFilters]
    ) -> Stream[Job]:
        """The jobs that failed for good and wait for a person, newest first; fetched 1 to 1,000 (50) at a time."""
        query = _query({**filters, "page_size": page_size})
        return self._stream(lambda: self._items("/api/dead-letters", query), Job)

    def redrive(
        self,
        meant: DeadLettersMeant,
        *,
        limit: int | None = None,
        rate: float | None = None,
        dry_run: bool = False,
    ) -> Dealt:
        """Run dead letters again, oldest first, each with all its tries: those that fit all of `meant` (`{}`: every
        one), at most `limit` of them, `rate` a second (0.001 to 10,000) instead of all at once. With `dry_run`
        nothing happens, and the answer says which it would be."""
        return together(self.redrive_each(meant, limit=limit, rate=rate, dry_run=dry_run))

    def redrive_each(
        self,
        meant: DeadLettersMeant,
        *,
        limit: int | None = None,
        rate: float | None = None,
        dry_run: bool = False,
    ) -> Stream[Dealt]:
        """Like `redrive`, as the server does it, at most 1,000 at a time. Nothing happens until it is iterated."""
        asked = {"filter": camel_case(meant), "dryRun": dry_run} | ({} if rate is None else {"rate": rate})
        return self._stream(
            lambda: deal(self._transport, "POST", "/api/dead-letters/redrive", asked, limit), Dealt
        )

    def purge(self, meant: DeadLettersMeant, *, limit: int | None = None, dry_run: bool = False) -> Dealt:
        """Delete dead letters for good, with all that is kept of them. What is meant, and the rest, as in `redrive`."""
        return together(self.purge_each(meant, limit=limit, dry_run=dry_run))

    def purge_each(
        self, meant: DeadLettersMeant, *, limit: int | None = None, dry_run: bool = False
    ) -> Stream[Dealt]:
        """Like `purge`, as the server does it, at most 1,000 at a time. Nothing happens until it is iterated."""
        asked = {"filter": camel_case(meant), "dryRun": dry_run}
        return self._stream(lambda: deal(self._transport, "DELETE", "/api/dead-letters", asked, limit), Dealt)

    def stats(self) -> Stats:
        """The whole yard in numbers."""
        return self._transport.decode(self.stats_json(), Stats)

    def stats_json(self) -> bytes:
        """Like `stats`, as the server wrote it."""
        return self._transport.send("GET", "/api/stats", repeatable=True).content

    def queues(self) -> Stream[Queue]:
        """Every queue that was ever used, by name."""
        return self._stream(lambda: self._items("/api/queues"), Queue)

    def workers(self) -> Stream[Worker]:
        """The worker processes, newest first."""
        return self._stream(lambda: self._items("/api/workers"), Worker)

    def ping(self) -> None:
        """Raises ServerUnreachable, at once, if nothing answers at the address."""
        # Whatever answers is good enough here; the call that follows says more.
        with contextlib.suppress(ApiError, NotJobyard):
            self._transport.send("GET", "/healthz", repeatable=False)

    def _job(self, job_id: str | Created | Job, wait: float | None) -> httpx.Response:
        deadline = time.monotonic() + (wait or 0)
        while True:
            response = self._job_within(_job_path(job_id), deadline - time.monotonic())
            status = self._transport.read(response, _Status).status
            if status in FINAL_STATUSES or time.monotonic() >= deadline:
                return response
            # A server that stops answers before the wait is over; its successor is asked, without haste.
            time.sleep(EARLY_ANSWER_PAUSE_SECONDS)

    def _job_within(self, path: str, seconds: float, known: str | None = None) -> httpx.Response:
        """`known`: the ETag of what the caller has; the answer is empty when there is nothing newer."""
        wait = min(max(0, math.ceil(seconds)), LONGEST_WAIT_SECONDS)
        headers = {"Prefer": f"wait={wait}"} if wait else {}
        if known is not None:
            headers["If-None-Match"] = known
        return self._transport.send("GET", path, repeatable=True, headers=headers, wait=wait)

    def _changes(self, path: str) -> Iterator[bytes]:
        response, asked = self._job_within(path, 0), -math.inf
        while True:
            if response.status_code != NOT_MODIFIED:
                yield response.content
                if self._transport.read(response, _Status).status in FINAL_STATUSES:
                    return
            # A server that stops answers at once.
            time.sleep(max(0.0, asked + EARLY_ANSWER_PAUSE_SECONDS - time.monotonic()))
            asked = time.monotonic()
            response = self._job_within(path, WATCH_SECONDS, known=response.headers.get("ETag"))

    def _stream(self, bodies: Callable[[], Iterator[bytes]], shape: type[T]) -> Stream[T]:
        return Stream(bodies, lambda body: self._transport.decode(body, shape))

    def _items(self, path: str, params: Mapping[str, str] = NO_PARAMETERS) -> Iterator[bytes]:
        """The items of all pages."""
        token: dict[str, str] = {}
        while True:
            response = self._transport.send("GET", path, repeatable=True, params={**params, **token})
            page = self._transport.read(response, _Rows)
            yield from map(bytes, page.items)
            if page.next_page_token is None:
                return
            token = {"pageToken": page.next_page_token}


def _job_path(job_id: str | Created | Job) -> str:
    text = job_id if isinstance(job_id, str) else job_id.id
    # Even when quoted, these would lead to another path than that of a job.
    if not text.strip(".") or "/" in text:
        raise ValueError(f"{text!r} is no id")
    return f"/api/jobs/{quote(text, safe='')}"


def _json_headers(idempotency_key: str | None, traceparent: str | None) -> dict[str, str]:
    headers = {"Content-Type": "application/json"}
    traceparent = traceparent or active_traceparent()
    if traceparent is not None:
        if not is_header_text(traceparent):
            raise ValueError("a traceparent is printable ASCII characters")
        headers["traceparent"] = traceparent
    if idempotency_key is not None:
        if not 1 <= len(idempotency_key) <= 255 or not is_header_text(idempotency_key):
            raise ValueError("an idempotency key is 1 to 255 printable ASCII characters")
        headers["Idempotency-Key"] = idempotency_key
    return headers


def _query(filters: Mapping[str, Any]) -> dict[str, str]:
    named = camel_case(filters)
    for key, value in named.pop("metadata", {}).items():
        named[f"metadata.{key}"] = value
    return {name: _text(value) for name, value in named.items()}


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
