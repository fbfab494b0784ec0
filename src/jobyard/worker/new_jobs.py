"""The jobs that handlers create: checked here as the HTTP API checks those of its clients."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any, TypedDict, Unpack

import msgspec

from jobyard import fields
from jobyard.domain.errors import InvalidJob
from jobyard.domain.job import (
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_PRIORITY,
    DEFAULT_QUEUE,
    DEFAULT_TIMEOUT_SECONDS,
    IdempotencyKey,
    NewJob,
)
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
    Tags,
    Timeout,
)
from jobyard.ids import new_job_id
from jobyard.worker import texts

DEFAULT_BACKOFF = Backoff()
NUL = r"\u0000"


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
    priority: Priority = DEFAULT_PRIORITY
    run_at: Instant | None = None
    delay_seconds: Delay | None = None
    timeout_seconds: Timeout = DEFAULT_TIMEOUT_SECONDS
    max_attempts: Attempts = DEFAULT_MAX_ATTEMPTS
    backoff_base_seconds: BackoffSeconds = DEFAULT_BACKOFF.base_seconds
    backoff_cap_seconds: BackoffSeconds = DEFAULT_BACKOFF.cap_seconds
    tags: Tags = []
    metadata: Metadata = {}
    idempotency_key: Key | None = None

    def require_what_no_field_knows(self) -> None:
        """Raises InvalidJob."""
        if self.run_at is not None:
            if self.delay_seconds is not None:
                raise InvalidJob("run_at and delay_seconds exclude each other: give one of them")
            if trouble := fields.trouble_with_instant(self.run_at):
                raise InvalidJob(f"run_at {trouble}")
        if trouble := fields.trouble_with_metadata(self.metadata):
            raise InvalidJob(f"the metadata {trouble}")
        if any("\0" in word for word in texts.leaves([self.tags, self.metadata])):
            raise InvalidJob("tags and metadata hold no U+0000, which cannot be kept")


def new_job(
    type: str, payload: Any, max_payload_bytes: int, trace: str | None, **options: Unpack[JobOptions]
) -> NewJob:
    """Raises InvalidJob, which says what cannot be."""
    try:
        asked = msgspec.convert({"type": type} | options, _Asked)
    except msgspec.ValidationError as fault:
        raise InvalidJob(str(fault)) from fault
    asked.require_what_no_field_knows()
    text = _payload({} if payload is None else payload, max_payload_bytes)
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
        tags=fields.kept(asked.tags),
        metadata=fields.kept(asked.metadata),
        trace=trace,
        idempotency=_key(asked, text),
    )


def _payload(value: Any, limit: int) -> str:
    try:
        text = texts.json_text(value, "the payload", limit)
    except ValueError as trouble:
        raise InvalidJob(str(trouble), "/payload") from trouble
    if NUL in text and any(
        "\0" in leaf for leaf in texts.leaves(msgspec.json.decode(text)) if isinstance(leaf, str)
    ):
        raise InvalidJob("the payload holds U+0000, which cannot be kept", "/payload")
    return text


def _key(asked: _Asked, payload: str) -> IdempotencyKey | None:
    if asked.idempotency_key is None:
        return None
    body = msgspec.json.encode(asked) + payload.encode()
    return IdempotencyKey(asked.idempotency_key, hashlib.sha256(b"handler\n" + body).digest())
