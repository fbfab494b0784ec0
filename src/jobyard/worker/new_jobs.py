"""The jobs that handlers create: checked here as the HTTP API checks those of its clients."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Annotated, Any, TypedDict, Unpack

import msgspec
from msgspec import Meta

from jobyard.domain.errors import InvalidJob
from jobyard.domain.job import (
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_PRIORITY,
    DEFAULT_QUEUE,
    DEFAULT_TIMEOUT_SECONDS,
    MAX_ATTEMPTS,
    MAX_BACKOFF_SECONDS,
    MAX_DELAY_SECONDS,
    MAX_METADATA_BYTES,
    MAX_NAME_LENGTH,
    MAX_PRIORITY,
    MAX_TAG_LENGTH,
    MAX_TAGS,
    MAX_TIMEOUT_SECONDS,
    NAME_PATTERN,
    IdempotencyKey,
    NewJob,
)
from jobyard.domain.retry import Backoff
from jobyard.ids import new_job_id

Name = Annotated[str, Meta(max_length=MAX_NAME_LENGTH, pattern=NAME_PATTERN + r"(?!\n)")]
BackoffSeconds = Annotated[float, Meta(ge=0, le=MAX_BACKOFF_SECONDS)]
NUL = rb"\u0000"


class JobOptions(TypedDict, total=False):
    """What may be said of a new job beside its type and payload; the same as over HTTP. `run_at` needs a time zone and
    excludes `delay_seconds`. One `idempotency_key` with the same type, payload and options makes one job within 24
    hours, however often its handler is tried."""

    queue: str
    priority: int
    run_at: datetime
    delay_seconds: float
    timeout_seconds: float
    max_attempts: int
    backoff_base_seconds: float
    backoff_cap_seconds: float
    tags: list[str]
    metadata: dict[str, str]
    idempotency_key: str


class _Asked(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    type: Name
    queue: Name = DEFAULT_QUEUE
    priority: Annotated[int, Meta(ge=0, le=MAX_PRIORITY)] = DEFAULT_PRIORITY
    run_at: Annotated[datetime, Meta(tz=True)] | None = None
    delay_seconds: Annotated[float, Meta(ge=0, le=MAX_DELAY_SECONDS)] | None = None
    timeout_seconds: Annotated[float, Meta(gt=0, le=MAX_TIMEOUT_SECONDS)] = DEFAULT_TIMEOUT_SECONDS
    max_attempts: Annotated[int, Meta(ge=1, le=MAX_ATTEMPTS)] = DEFAULT_MAX_ATTEMPTS
    backoff_base_seconds: BackoffSeconds = Backoff().base_seconds
    backoff_cap_seconds: BackoffSeconds = Backoff().cap_seconds
    tags: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=MAX_TAG_LENGTH)]], Meta(max_length=MAX_TAGS)
    ] = []
    metadata: dict[str, str] = {}
    idempotency_key: Annotated[str, Meta(pattern=r"^[\x20-\x7e]{1,255}$(?!\n)")] | None = None


def new_job(
    type: str, payload: Any, max_payload_bytes: int, trace: str | None, **options: Unpack[JobOptions]
) -> NewJob:
    """Raises InvalidJob, which says what cannot be."""
    try:
        asked = msgspec.convert({"type": type} | options, _Asked)
    except msgspec.ValidationError as fault:
        raise InvalidJob(str(fault)) from fault
    if asked.run_at is not None and asked.delay_seconds is not None:
        raise InvalidJob("run_at and delay_seconds exclude each other: give one of them")
    text = json_text({} if payload is None else payload, "the payload", max_payload_bytes)
    tags = json_text(asked.tags, "the tags") if asked.tags else None
    metadata = json_text(asked.metadata, "the metadata", MAX_METADATA_BYTES) if asked.metadata else None
    return NewJob(
        id=new_job_id(),
        type=asked.type,
        payload=text,
        queue=asked.queue,
        priority=asked.priority,
        max_attempts=asked.max_attempts,
        timeout_seconds=asked.timeout_seconds,
        backoff=Backoff(asked.backoff_base_seconds, asked.backoff_cap_seconds),
        run_at=asked.run_at,
        delay_seconds=asked.delay_seconds,
        tags=tags,
        metadata=metadata,
        trace=trace,
        idempotency=_key(asked, text),
    )


def json_text(value: Any, what: str, limit: int | None = None) -> str:
    """The value as JSON that can be kept. Raises InvalidJob."""
    try:
        text = msgspec.json.encode(value)
        # The encoder writes NaN as null, which would be another value than the one that was given.
        if b"null" in text and not msgspec.json.decode(text) == msgspec.to_builtins(value):
            raise ValueError("it holds what JSON cannot say, such as NaN")
    except Exception as error:  # a property or a hook of the user's own class may raise anything
        raise InvalidJob(f"{what} cannot be kept as JSON: {error}") from error
    if NUL in text:
        raise InvalidJob(f"{what} holds U+0000, which cannot be kept")
    if limit is not None and len(text) > limit:
        raise InvalidJob(f"{what} is {len(text)} bytes long; at most {limit} are kept")
    return text.decode()


def _key(asked: _Asked, payload: str) -> IdempotencyKey | None:
    if asked.idempotency_key is None:
        return None
    body = msgspec.json.encode(asked) + payload.encode()
    return IdempotencyKey(asked.idempotency_key, hashlib.sha256(b"handler\n" + body).digest())
