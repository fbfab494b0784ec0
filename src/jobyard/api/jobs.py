"""The endpoints of jobs: parse, ask the store, render."""

from __future__ import annotations

import contextlib
import hashlib
import re
import uuid
from collections.abc import Mapping
from typing import TypeVar

import asyncpg
import msgspec

from jobyard import telemetry
from jobyard.api import bodies, render
from jobyard.api.exchange import Answer, Headers, Request, json_answer
from jobyard.api.listing import list_name, read_query
from jobyard.api.one_job import job_id, row_of
from jobyard.api.paging import make_token, read_token
from jobyard.api.parts import ENVELOPE_BYTES, Parts
from jobyard.api.problems import Fault, TooLarge, ValidationFailed, problem_of
from jobyard.api.schemas import (
    BulkAnswer,
    BulkEnvelope,
    BulkItem,
    BulkJob,
    Created,
    CreateJob,
    JobPage,
    ListQuery,
)
from jobyard.domain.errors import DatabaseUnavailable, JobyardError, NotFound, Overloaded
from jobyard.domain.job import DEFAULT_TENANT, IdempotencyKey, NewJob
from jobyard.domain.lifecycle import Status, is_final
from jobyard.fields import KEY_PATTERN
from jobyard.ids import new_job_id
from jobyard.store import intake, reads, verbs
from jobyard.telemetry import LogEvent

J = TypeVar("J", bound=CreateJob)

FIRST_RUN = 1
METADATA = "metadata."
ASK_AGAIN = b"private, no-cache"
"""A client may keep its copy and ask by the ETag whether it still holds; what stands between keeps none."""

_decoder = msgspec.json.Decoder(CreateJob)
_bulk_job_decoder = msgspec.json.Decoder(BulkJob)
_envelope_decoder = msgspec.json.Decoder(BulkEnvelope)
_key = re.compile(KEY_PATTERN).match
_traceparent = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}").fullmatch


async def create(parts: Parts, request: Request) -> Answer:
    body = await bodies.read_json(request, parts.create_limit, parts.body_patience)
    asked = _accepted(_decoder, body, parts.settings.max_payload_bytes)
    job = asked.to_domain(new_job_id(), _idempotency(request, body), _trace(request))
    created = await parts.create(job)
    if telemetry.detailed():
        _tell_creation(job, created, request)
    headers = _headers_of_created(created)
    if seconds := request.wait_seconds():
        final = await _final(parts, request, created, seconds)
        if final is not None:
            return json_answer(200, render.job(final), headers)
    return json_answer(200 if created.replayed else 202, Created(str(created.id)), headers)


async def create_bulk(parts: Parts, request: Request) -> Answer:
    if b"idempotency-key" in request.headers:
        raise ValidationFailed(
            [Fault("/Idempotency-Key", "a bulk has an idempotencyKey in each job instead")]
        )
    settings = parts.settings
    body = await bodies.read_json(request, settings.max_bulk_bytes, parts.body_patience)
    jobs = [
        _bulk_job(raw, request, settings.max_payload_bytes)
        for raw in bodies.decode_envelope(_envelope_decoder, body).jobs
    ]
    answers = iter(await parts.create_many([job for job in jobs if isinstance(job, NewJob)]))
    outcomes = [next(answers) if isinstance(job, NewJob) else job for job in jobs]
    if telemetry.detailed():
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(job, NewJob) and isinstance(outcome, intake.Created):
                _tell_creation(job, outcome, request)
    return json_answer(
        200, BulkAnswer([_bulk_item(index, outcome) for index, outcome in enumerate(outcomes)])
    )


async def get(parts: Parts, request: Request) -> Answer:
    job = job_id(request)
    row = await row_of(parts, job)
    if (seconds := request.wait_seconds()) and not is_final(Status(row["status"])):
        await parts.waiters.wait((job, row["run"]), seconds, request.gone())
        row = await row_of(parts, job)
    tag = render.etag(row)
    headers: Headers = [(b"etag", tag)]
    if _matches(request.headers.get(b"if-none-match"), tag):
        return Answer(304, b"", headers, caching=ASK_AGAIN)
    return json_answer(200, render.job(row), headers, ASK_AGAIN)


async def cancel(parts: Parts, request: Request) -> Answer:
    job = job_id(request)
    async with parts.reading() as connection:
        cancelled = await verbs.cancel(connection, job, DEFAULT_TENANT)
    status = 200 if cancelled is verbs.Cancelled.AT_ONCE else 202
    return json_answer(status, render.job(await row_of(parts, job)))


async def retry(parts: Parts, request: Request) -> Answer:
    job = job_id(request)
    async with parts.reading() as connection:
        await verbs.retry(connection, job, DEFAULT_TENANT)
    return json_answer(200, render.job(await row_of(parts, job)))


async def list_jobs(parts: Parts, request: Request) -> Answer:
    values = _nested(request.query())
    query = read_query(values, ListQuery)
    name = list_name(request, values)
    below = (
        uuid.UUID(bytes=read_token(query.page_token, name, 16))
        if query.page_token is not None
        else reads.NEWEST
    )
    async with parts.reading() as connection:
        page = await reads.list_jobs(connection, DEFAULT_TENANT, _filters(query), below, query.page_size)
    token = make_token(page.last.bytes, name) if page.last else None
    return json_answer(200, JobPage([render.job_summary(row) for row in page.rows], token))


# Creates


def _accepted(decoder: msgspec.json.Decoder[J], raw: bytes | msgspec.Raw, max_payload_bytes: int) -> J:
    """What the client asks for, if it can be had. Raises a Refusal."""
    if len(memoryview(raw)) > max_payload_bytes + ENVELOPE_BYTES:
        raise TooLarge(f"the job is larger than {max_payload_bytes + ENVELOPE_BYTES} bytes")
    asked = bodies.decode(decoder, raw)
    if found := asked.faults():
        raise ValidationFailed(found)
    if len(memoryview(asked.payload)) > max_payload_bytes:
        raise TooLarge(f"the payload is larger than {max_payload_bytes} bytes")
    return asked


def _bulk_job(raw: msgspec.Raw, request: Request, max_payload_bytes: int) -> NewJob | JobyardError:
    try:
        asked = _accepted(_bulk_job_decoder, raw, max_payload_bytes)
    except JobyardError as refusal:
        return refusal
    key = None if asked.idempotency_key is None else _keyed(asked.idempotency_key, request, bytes(raw))
    return asked.to_domain(new_job_id(), key, _trace(request))


def _bulk_item(index: int, outcome: intake.Answer) -> BulkItem:
    if isinstance(outcome, intake.Created):
        return BulkItem(id=str(outcome.id), status=Status.PENDING, replayed=outcome.replayed)
    return BulkItem(problem=problem_of(outcome, within=f"/jobs/{index}"))


def _idempotency(request: Request, body: bytes) -> IdempotencyKey | None:
    given = request.headers.get(b"idempotency-key")
    if given is None:
        return None
    key = given.decode("latin-1")
    if not _key(key):
        raise ValidationFailed([Fault("/Idempotency-Key", "must be 1 to 255 printable ASCII characters")])
    return _keyed(key, request, body)


def _keyed(key: str, request: Request, body: bytes) -> IdempotencyKey:
    return IdempotencyKey(
        key, hashlib.sha256(b"%s %s\n%s" % (request.method.encode(), request.path.encode(), body)).digest()
    )


def _trace(request: Request) -> str | None:
    given = request.headers.get(b"traceparent")
    return given.decode() if given and _traceparent(given) else None


def _tell_creation(job: NewJob, created: intake.Created, request: Request) -> None:
    telemetry.debug(
        LogEvent.JOB_CREATED,
        job=str(created.id),
        type=job.type,
        queue=job.queue,
        request_id=request.id,
        replayed=created.replayed,
        **telemetry.trace_facts(job.trace),
    )


def _headers_of_created(created: intake.Created) -> Headers:
    headers: Headers = [(b"location", b"/api/jobs/" + str(created.id).encode())]
    if created.replayed:
        headers.append((b"idempotency-replayed", b"true"))
    return headers


async def _final(
    parts: Parts, request: Request, created: intake.Created, seconds: int
) -> asyncpg.Record | None:
    """The job, if it is final within that time. It is committed: whatever hinders the waiting, the client is told so
    and not that its request failed."""
    with contextlib.suppress(Overloaded, DatabaseUnavailable, NotFound):
        return await _await_final(parts, request, created, seconds)
    return None


async def _await_final(
    parts: Parts, request: Request, created: intake.Created, seconds: int
) -> asyncpg.Record | None:
    run = (await row_of(parts, created.id))["run"] if created.replayed else FIRST_RUN
    await parts.waiters.wait((created.id, run), seconds, request.gone())
    row = await row_of(parts, created.id)
    return row if is_final(Status(row["status"])) else None


def _matches(asked: bytes | None, tag: bytes) -> bool:
    if asked is None:
        return False
    return asked.strip() == b"*" or tag in (known.strip().removeprefix(b"W/") for known in asked.split(b","))


# Lists


def _nested(values: Mapping[str, str]) -> dict[str, object]:
    """`metadata.K=V` as the pair of an object."""
    metadata = {
        name.removeprefix(METADATA): value for name, value in values.items() if name.startswith(METADATA)
    }
    others: dict[str, object] = {
        name: value for name, value in values.items() if not name.startswith(METADATA)
    }
    return {**others, "metadata": metadata} if metadata else others


def _filters(query: ListQuery) -> reads.Filters:
    return reads.Filters(
        status=query.status,
        type=query.type,
        queue=query.queue,
        tag=query.tag,
        metadata=msgspec.json.encode(query.metadata).decode() if query.metadata else None,
        created_after=query.created_after,
        created_before=query.created_before,
    )
