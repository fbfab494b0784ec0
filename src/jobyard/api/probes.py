"""Is the process alive, can it serve: the two questions of whoever runs it."""

from __future__ import annotations

import asyncio
from typing import Literal

import msgspec

from jobyard.api.exchange import Answer, Request, json_answer
from jobyard.api.parts import Parts
from jobyard.domain.errors import DatabaseUnavailable
from jobyard.store.migrate import is_current

LONGEST_PROBE_SECONDS = 2.0
"""Probes are impatient: an answer after their own timeout counts as none."""

RETRY_AFTER = (b"retry-after", b"1")


class Health(msgspec.Struct):
    """The process answers."""

    status: Literal["ok"] = "ok"


class State(msgspec.Struct):
    """One part. `detail` says what is wrong."""

    ok: bool
    detail: str | None = None


class ReadyParts(msgspec.Struct):
    """`database` answers; `schema` has every migration of this release; `serving`: this process is not stopping."""

    database: State
    schema: State
    serving: State


class Readiness(msgspec.Struct):
    """`ready` when every part is."""

    status: Literal["ready", "not_ready"]
    parts: ReadyParts


async def healthz(parts: Parts, request: Request) -> Answer:
    return json_answer(200, Health())


async def readyz(parts: Parts, request: Request) -> Answer:
    database, schema = await _database_and_schema(parts)
    serving = State(False, "this process is stopping") if parts.draining else State(True)
    if database.ok and schema.ok and serving.ok:
        return json_answer(200, Readiness("ready", ReadyParts(database, schema, serving)))
    return json_answer(503, Readiness("not_ready", ReadyParts(database, schema, serving)), [RETRY_AFTER])


async def _database_and_schema(parts: Parts) -> tuple[State, State]:
    try:
        async with asyncio.timeout(LONGEST_PROBE_SECONDS), parts.reading() as connection:
            current = await is_current(connection)
    except (TimeoutError, DatabaseUnavailable):
        return State(False, "does not answer"), State(False, "unknown")
    return State(True), State(True) if current else State(False, "run `jobyard migrate`")
