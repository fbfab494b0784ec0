"""Calls of the `http` handler against a server on this machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any
from uuid import UUID, uuid4

import msgspec

from jobyard.domain.lifecycle import Fail, Retry
from jobyard.handlers.http import Call, Caller
from jobyard.outgoing import Client

MAX_RESULT_BYTES = 1 << 20
CLIENT = Client([ip_network("127.0.0.0/8")])


@dataclass
class Job:
    job_id: UUID = field(default_factory=uuid4)
    traceparent: str | None = None


def parsed(payload: dict[str, Any]) -> Call:
    """The payload as a worker reads it."""
    return msgspec.json.decode(msgspec.json.encode(payload), type=Call)


async def call(
    url: str, job: Job | None = None, max_result_bytes: int = MAX_RESULT_BYTES, **payload: Any
) -> Any:
    caller = Caller(CLIENT, max_result_bytes)
    return await caller.call(parsed({"url": url} | payload), job or Job())


async def result_of(url: str, **options: Any) -> dict[str, Any]:
    ended = await call(url, **options)
    assert not isinstance(ended, Fail | Retry), ended
    return ended
