"""Which job a request is about, and how it stands."""

from __future__ import annotations

import re
import uuid

import asyncpg

from jobyard.api.exchange import Request
from jobyard.api.parts import Parts
from jobyard.domain.errors import NotAnId, NotFound
from jobyard.domain.job import DEFAULT_TENANT
from jobyard.store import reads

_canonical_uuid = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}").fullmatch


def job_id(request: Request) -> uuid.UUID:
    """Anything but a UUID in its canonical form, in either case, is no job we have."""
    text = request.path_value("id")
    if not _canonical_uuid(text):
        raise NotAnId(text)
    return uuid.UUID(text)


async def row_of(parts: Parts, job: uuid.UUID) -> asyncpg.Record:
    async with parts.reading() as connection:
        row = await reads.get(connection, job, DEFAULT_TENANT)
    if row is None:
        raise NotFound(str(job))
    return row
